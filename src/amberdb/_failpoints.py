"""Named places between two steps of the engine, where a test can stop or kill the process.

    if failpoints.on:
        failpoints.reach("commit.written")

Invariants:
- Each name is at exactly one place, and names the step before or after it.
- Outside of tests nothing is installed, and a place costs one check of `on`.
- The first word of a name is the phase: the operation that a kill there interrupts.
"""

from collections.abc import Callable

NAMES = (
    "checkpoint.before-commit",
    "checkpoint.before-release",
    "checkpoint.committed",
    "checkpoint.frozen",
    "checkpoint.in-transaction",
    "checkpoint.recycled",
    "checkpoint.recycling",
    "checkpoint.waited",
    "close.checkpointed",
    "close.marked-clean",
    "close.stopping",
    "close.synced",
    "commit.appended",
    "commit.before-sync",
    "commit.before-visible",
    "commit.before-write",
    "commit.encoded",
    "commit.published",
    "commit.released",
    "commit.synced",
    "commit.visible",
    "commit.written",
    "compact.before-manifest",
    "compact.chunk-copied",
    "compact.copied",
    "compact.log-renewed",
    "compact.manifest-written",
    "compact.old-removed",
    "compact.switched",
    "create.completed",
    "create.data-made",
    "create.locked",
    "create.log-made",
    "create.manifest-written",
    "create.marked",
    "erase.before-commit",
    "erase.compacted",
    "erase.completed",
    "erase.deleted",
    "expiry.before-commit",
    "expiry.committed",
    "index.before-mark",
    "index.chunk-committed",
    "index.chunk-written",
    "index.declared",
    "index.marked",
    "index.unique-checked",
    "merge.committed",
    "merge.in-transaction",
    "migration.before-commit",
    "migration.before-end",
    "migration.committed",
    "migration.ended",
    "migration.upgraded",
    "open.marked-in-use",
    "purge.before-catalog",
    "purge.chunk-committed",
    "purge.chunk-deleted",
    "recovery.locked",
    "recovery.log-read",
    "recovery.manifest-read",
    "recovery.manifest-written",
    "recovery.replayed",
    "recovery.status-written",
    "recovery.store-open",
    "recovery.tail-rewritten",
    "recovery.tail-synced",
    "recovery.tail-truncated",
    "replace.before-catalog",
    "rolling.done",
    "rolling.pruned",
    "rolling.taken",
    "rotation.header-written",
    "rotation.in-use",
    "rotation.names-synced",
    "rotation.old-synced",
    "rotation.renamed",
    "rotation.spare-taken",
    "rotation.spare-zeroed",
    "schema.before-commit",
    "schema.committed",
    "split.chunk-committed",
    "split.chunk-written",
    "subscriber.before-commit",
    "subscriber.log-kept",
    "subscriber.moved",
    "vectors.compacted",
    "vectors.extended",
    "vectors.saved",
    "vectors.saving",
)
"""All names, sorted."""


def _ignore(name: str) -> None:
    """The default of `reach`."""


on = False
reach: Callable[[str], None] = _ignore


def install(callback: Callable[[str], None] | None) -> None:
    """Calls `callback` with the name of each place that a thread reaches; None removes it."""
    global on, reach
    reach = _ignore if callback is None else callback
    on = callback is not None
