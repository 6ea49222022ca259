"""The sweeps are proved: each deliberate bug makes one fail that passes without it."""

from typing import Final, NamedTuple

import pytest

from amberdb.index.vector.hnsw import library
from support import slices
from support.bugs import SWEPT
from support.sweep import Figures, Lost, Sweep
from support.workload import sequence


class Slice(NamedTuple):
    """A sweep that is enough for a bug, and what it must find."""

    steps: str
    finds: str
    """In the message: the mode where only one shows it, and what was broken."""
    recoveries: float = 0.0
    alphabet: str = "plain"
    since: int = 0
    """The step behind which `make test` begins to crash: what comes before finds nothing."""
    seed: int = 0
    """Of the sweep: with 2 the first image after the first crash is opened and swept."""


_ROTATION: Final = "big_put+burst+big_put+checkpoint+big_put+burst"
_FILES: Final = "fresh_burst+build+drop_index"
_NOT_SYNCED: Final = (
    "drop unsynced: (commit 2 was acknowledged|.* was applied)"
    "|reordered: .* shows that later records were durable"
)
_CHECK: Final = r"clean prefix: CheckReport\(problems=.* the counter says"

SLICES: Final = {
    "skip_the_sync_of_the_log": Slice("put", _NOT_SYNCED),
    "acknowledge_before_the_sync": Slice("put+burst", "drop unsynced: commit 2 was acknowledged"),
    "forget_the_last_record_of_a_group": Slice("put", _NOT_SYNCED),
    "ignore_the_class_of_a_commit": Slice("put+burst", "drop unsynced: commit 2 was acknowledged"),
    "drop_the_directory_sync_of_the_log": Slice("put", "the log in .* is missing"),
    "rename_manifest_before_its_sync": Slice("put", "MANIFEST is not AmberDB's"),
    "drop_the_directory_sync_of_manifest": Slice("put", "rename lost: .*MANIFEST is missing"),
    "recycle_before_the_checkpoint": Slice("put+burst", "clean prefix: .*the log begins with"),
    "checkpoint_half_of_it": Slice("put+burst", _CHECK),
    "ignore_tombstones_at_the_checkpoint": Slice("put+index+overwrite+delete+transaction", _CHECK),
    "checkpoint_without_the_applied_lsn": Slice("put+burst", "clean prefix: .*the log begins with"),
    "ignore_tombstones_in_replay": Slice("transaction", _CHECK),
    "replay_half_a_transaction": Slice("put", _CHECK),
    "keep_the_epoch": Slice("put", "drop unsynced: Lsn ([0-9]+) was given, and \\1 would"),
    "accept_the_tail_without_rewriting_it": Slice(
        "put+burst",
        "clean prefix, operation .*, drop unsynced: .* was applied",
        recoveries=0.7,
        since=1,
        seed=2,
    ),
    "always_mark_clean": Slice("put", "clean prefix: .* was closed at Lsn 0"),
    "use_a_spare_without_its_header": Slice(_ROTATION, "has the name of another segment"),
    "forget_the_newest_segment": Slice("put+burst", "clean prefix: commit 5 was acknowledged"),
    "label_a_cache_file_without_syncing_the_log": Slice(
        _FILES, "a search: ", alphabet="vectors", since=2
    ),
    "believe_a_cache_file_that_was_not_synced": Slice(
        _FILES, "a search: ", alphabet="vectors", since=2
    ),
    "leave_the_file_of_a_dropped_index": Slice(
        _FILES, "are in cache/, and the indexes are", alphabet="vectors", since=3
    ),
    "checkpoint_by_the_newest_catalog": Slice(
        "drop_index_beside", "the live-row bitmap is wrong", alphabet="beside", since=1
    ),
}


def run(alphabet: str, steps: str, recoveries: float, since: int, seed: int) -> None:
    found = sequence(alphabet, steps.split("+"))
    variants = 2 if not since else 1
    sweep = Sweep(Figures(), steps, found, variants=variants, seed=seed)
    sweep.run(recoveries=recoveries, since=since)


NEED_GRAPHS = {"label_a_cache_file_without_syncing_the_log"}
"""Without graphs a file in cache/ is only written when the database is closed, and so synced."""


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize(
    ("alphabet", "steps", "recoveries", "since", "seed"),
    [
        pytest.param(  # the longer ones are in test_sweep.py, too
            *one, marks=pytest.mark.campaign if one[2] or one[3] == 2 else ()
        )
        for one in sorted(
            {(a.alphabet, a.steps, a.recoveries, a.since, a.seed) for a in SLICES.values()}
        )
    ],
)
def test_without_a_bug_the_slices_pass(
    alphabet: str, steps: str, recoveries: float, since: int, seed: int
) -> None:
    run(alphabet, steps, recoveries, 0 if slices.IS_WHOLE else since, seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.campaign if SLICES[name].since == 2 else ())
        for name in SWEPT
    ],
)
def test_a_deliberate_bug_is_caught(name: str) -> None:
    if name in NEED_GRAPHS and library() is None:
        pytest.skip("needs the extra hnsw")
    steps, finds, recoveries, alphabet, since, seed = SLICES[name]
    with SWEPT[name](), pytest.raises(Lost, match=finds):
        run(alphabet, steps, recoveries, since, seed)
