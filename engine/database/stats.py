"""Stats: what an open database tells of its insides, as one value.

Invariants:
- Telling changes nothing and loads nothing: a search index that nobody has asked yet is said to be
  not loaded, and stays so.
- What is measured on the way of commits and checkpoints is a count, a sum, and two numbers more.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, final

from amberdb._fs import FileSystem
from amberdb._types import NO_LSN, Lsn, lsn_number
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.cache_file import FOLDER
from amberdb.engine.storage.view import View

if TYPE_CHECKING:
    from amberdb.engine.commit.change_feed import Feed
    from amberdb.engine.commit.checkpoint import Checkpointer
    from amberdb.engine.commit.committer import Committer
    from amberdb.engine.maintenance.migrator import Migrator


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, over its `count` times since the database was opened."""

    count: int = 0
    last_ms: float = 0.0
    mean_ms: float = 0.0
    max_ms: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class FileBytes:
    """On the disk, by kind."""

    log: int = 0
    log_spare: int = 0
    """Of files that wait to be segments."""
    data_used: int = 0
    """Pages of data.mdb in use."""
    data_free: int = 0
    """Pages that are free until something is written into them, or compact() gives them back."""
    cache: int = 0

    @property
    def total(self) -> int:
        """Of all of them."""
        return sum(getattr(self, each.name) for each in fields(self))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Mapping[str, Any]):
    """What db.stats() gives: `stats.last_lsn`, or as of a map `stats["last_lsn"]`."""

    path: str
    read_only: bool = False
    last_lsn: Lsn = NO_LSN
    """Of the last commit; where only reading is done, the newest that is known."""
    visible_lsn: int
    """Up to where commits are acknowledged."""
    durable_lsn: Lsn
    applied_lsn: Lsn
    """Up to where they are in data.mdb."""
    archived_lsn: Lsn | None
    """Where the newest backup ends, while an incremental one can go on from there."""
    memtable_bytes: int
    bytes: FileBytes
    live_share: float
    """Of data.mdb, what is in use: from 0 to 1."""
    checkpoints: int = 0
    checkpoint_ms_last: float = 0.0
    checkpoint: Latency = field(default_factory=Latency)
    sync: Latency = field(default_factory=Latency)
    """Of the log: what a commit of class `always` waits for."""
    log: dict[str, Any]
    store: dict[str, Any]
    collections: dict[str, dict[str, Any]]
    snapshots: int
    oldest_snapshot_ms: float
    """The oldest reader of this process: pages that it may see are not used again."""
    subscribers: dict[str, Lsn]
    subscriber_lag: dict[str, int]
    """Commits that each of them has yet to acknowledge."""
    backups: Any = None
    compaction: Any = None
    erasures_waiting: list[str] = field(default_factory=list[str])

    def __getitem__(self, name: str) -> Any:
        if name not in list(self):
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter([each.name for each in fields(self)])

    def __len__(self) -> int:
        return len(fields(self))

    def to_map(self) -> dict[str, Any]:
        """All of it in dictionaries and lists, as JSON has it."""
        return asdict(self)


def stats_of(
    path: str,
    committer: "Committer",
    checkpointer: "Checkpointer",
    migrator: "Migrator",
    feed: "Feed",
    ages_ms: list[float],
    fs: FileSystem,
    upkeep: Mapping[str, Any],
) -> Stats:
    """Of a database that is open to write."""
    log, state = committer.log, committer.state
    found, store = log.stats(), committer.store.stats()
    with committer.view() as view:
        collections = {
            name: _collection(view, schema, committer, migrator)
            for name, schema in state.catalog.schemas.items()
        }
    positions = dict(feed.positions)
    last_ms, count = checkpointer.last_ms, checkpointer.count
    mean_ms = checkpointer.total_ms / count if count else 0.0
    return Stats(
        path=path,
        last_lsn=log.last_lsn,
        visible_lsn=committer.visible,
        durable_lsn=log.durable_lsn,
        applied_lsn=checkpointer.applied,
        archived_lsn=feed.archived,
        memtable_bytes=committer.memtable_bytes,
        bytes=bytes_of(found, store, path, fs),
        live_share=live_share(store),
        checkpoints=count,
        checkpoint_ms_last=last_ms,
        checkpoint=Latency(count, last_ms, mean_ms, checkpointer.max_ms),
        sync=Latency(
            int(found["syncs"]),
            found["sync_us_last"] / 1000,
            found["sync_us_mean"] / 1000,
            found["sync_us_max"] / 1000,
        ),
        log=found,
        store=dict(store),
        collections=collections,
        snapshots=len(ages_ms),
        oldest_snapshot_ms=max(ages_ms, default=0.0),
        subscribers=positions,
        subscriber_lag=lag_of(positions, log.last_lsn),
        **upkeep,
    )


def bytes_of(
    log: Mapping[str, Any], store: Mapping[str, int], path: str, fs: FileSystem
) -> FileBytes:
    """`log` and `store` as they tell of themselves."""
    used = store["used_bytes"]
    return FileBytes(
        log=int(log["bytes"]),
        log_spare=int(log.get("free_bytes", 0)),
        data_used=used,
        data_free=store["file_bytes"] - used,
        cache=_folder_bytes(os.path.join(path, FOLDER), fs),
    )


def live_share(store: Mapping[str, int]) -> float:
    """Of data.mdb, as the store tells of itself."""
    return store["used_bytes"] / store["file_bytes"] if store["file_bytes"] else 1.0


def lag_of(positions: Mapping[str, Lsn], last_lsn: Lsn) -> dict[str, int]:
    """By subscriber: commits behind its position."""
    last = lsn_number(last_lsn)
    return {name: max(0, last - lsn_number(lsn)) for name, lsn in positions.items()}


def _folder_bytes(folder: str, fs: FileSystem) -> int:
    """Of its files; some of them may go while they are counted."""
    if not fs.is_dir(folder):
        return 0
    size = 0
    for name in fs.listdir(folder):
        try:
            size += os.path.getsize(os.path.join(folder, name))
        except OSError:
            continue
    return size


def facts_of(view: View, schema: Schema) -> dict[str, Any]:
    """What there is to tell of a collection without anything but a view."""
    return {
        "documents": CollectionCounters.unpack(view.get(schema.counters_key)).documents,
        "version": schema.definition.version,
        "expires_at": schema.expires_at,
        "indexes": {
            index.spec.name: "migrating"
            if schema.migration is not None
            else "ready"
            if view.is_built(index)
            else "building"
            for index in schema.all_indexes
        },
    }


def _collection(
    view: View, schema: Schema, committer: "Committer", migrator: "Migrator"
) -> dict[str, Any]:
    migration, embedders = schema.migration, committer.embedders
    migrating = None
    if migration is not None:
        migrating = {
            "from_version": migration.steps[0][0] - 1,
            "functions_missing": migration.missing,
            "documents_read": migrator.read.get(schema.name, 0),
        }
    return {
        **facts_of(view, schema),
        "migrating": migrating,
        "search": {
            index.spec.name: committer.searchers.stats_of(index) for index in schema.row_indexes
        },
        "embedding": {
            queue.spec.fields[0]: {
                "waiting": sum(1 for _ in view.scan(queue.prefix, end_of(queue.prefix))),
                "error": embedders.failure_of(queue),
            }
            for queue in schema.queues
        },
    }
