"""Stats: measurements of an open database, as one value.

Invariants:
- Taking them changes nothing and loads nothing: a search index that was not searched yet is
  reported as not loaded, and stays so.
- A commit or a checkpoint updates four numbers: the count, the sum, the last and the largest.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, final

from amberdb._fs import FileSystem
from amberdb._public import public
from amberdb._types import NO_LSN, Lsn, lsn_number
from amberdb.engine.backup.history import BackupHistory, newest_backup
from amberdb.engine.commit.change_feed import Feed, positions_of
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.follower import Follower
from amberdb.engine.failures import Failures, JobFailure
from amberdb.engine.maintenance.migrator import Migrator
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.keyspace import end_of, prefix_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.cache_file import FOLDER
from amberdb.engine.storage.held_view import HeldViews
from amberdb.engine.storage.status import Minute
from amberdb.engine.storage.view import View


@public
@final
@dataclass(frozen=True, slots=True)
class Latency:
    """Durations in milliseconds of `count` operations since the database was opened."""

    count: int = 0
    last_ms: float = 0.0
    mean_ms: float = 0.0
    max_ms: float = 0.0


@public
@final
@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes on the disk, by kind of file."""

    log: int = 0
    log_spare: int = 0
    """Files that are kept to become segments."""
    data_used: int = 0
    """Pages of data.mdb in use."""
    data_free: int = 0
    """Free pages of data.mdb: the next writes use them, compact() returns them to the disk."""
    cache: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return sum(getattr(self, each.name) for each in fields(self))


@public
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Mapping[str, Any]):
    """The result of db.stats(), as attributes and as a map: `stats.last_lsn`,
    `stats["last_lsn"]`."""

    path: str
    read_only: bool = False
    last_lsn: Lsn = NO_LSN
    """The last commit; on a read-only database the newest one that is known."""
    visible_lsn: int
    """The last commit that is acknowledged."""
    durable_lsn: Lsn
    applied_lsn: Lsn
    """The last commit that a checkpoint has written to data.mdb."""
    archived_lsn: Lsn | None
    """The last Lsn of the newest backup while an incremental one can follow it; else None."""
    memtable_bytes: int
    bytes: FileBytes
    live_share: float
    """The share of data.mdb that is in use, from 0 to 1."""
    checkpoints: int = 0
    checkpoint_ms_last: float = 0.0
    checkpoint: Latency = field(default_factory=Latency)
    sync: Latency = field(default_factory=Latency)
    """Syncs of the log, which a commit of class `always` waits for."""
    log: dict[str, Any]
    store: dict[str, Any]
    collections: dict[str, dict[str, Any]]
    snapshots: int
    oldest_snapshot_ms: float
    """The age of the oldest snapshot of this process; the pages that it may read are kept."""
    subscribers: dict[str, Lsn]
    subscriber_lag: dict[str, int]
    """By subscriber: the commits that it has yet to acknowledge."""
    clock_behind_ms: float
    """How far the clock is behind the last commit; 0.0 when it is not. While it is more than
    `clock_slack_ms`, nothing is removed because of its age."""
    backups: Any = None
    compaction: Any = None
    erasures_waiting: list[str] = field(default_factory=list[str])
    minutes: tuple[Minute, ...] = ()
    """What the writing process did in each of the last 60 minutes in which it did something, the
    oldest first, since the machine was started. Another process sees a minute when it is over, or
    after a checkpoint."""
    failures: list[JobFailure] = field(default_factory=list[JobFailure])
    """Background jobs that have failed, each of which is tried again."""

    def __getitem__(self, name: str) -> Any:
        if name not in list(self):
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter([each.name for each in fields(self)])

    def __len__(self) -> int:
        return len(fields(self))

    def to_map(self) -> dict[str, Any]:
        """All values in dictionaries and lists, ready for JSON."""
        minutes = [{**asdict(each), "time": each.time.isoformat()} for each in self.minutes]
        return {**asdict(self), "minutes": minutes}


def stats_of(
    path: str,
    committer: Committer,
    checkpointer: Checkpointer,
    migrator: Migrator,
    feed: Feed,
    history: BackupHistory,
    searchers: Searchers,
    embedders: Embedders,
    held_views: HeldViews,
    failures: Failures,
    fs: FileSystem,
    maintenance: Mapping[str, Any],
) -> Stats:
    """The stats of a database that is open for writing."""
    log, state = committer.log, committer.state
    log_stats, store = log.stats(), committer.store.stats()
    tree_bytes = committer.store.tree_bytes()
    with committer.view() as view:
        collections = {
            name: {
                **collection_facts(view, schema, tree_bytes),
                "migrating": _migrating(schema, migrator),
                "search": {i.spec.name: searchers.stats_of(i) for i in schema.row_indexes},
                "embedding": embedding_facts(view, schema, embedders),
            }
            for name, schema in state.catalog.schemas.items()
        }
    last_ms, count = checkpointer.last_ms, checkpointer.count
    mean_ms = checkpointer.total_ms / count if count else 0.0
    return Stats(
        path=path,
        last_lsn=log.last_lsn,
        visible_lsn=committer.visible,
        durable_lsn=log.durable_lsn,
        applied_lsn=checkpointer.applied,
        archived_lsn=history.archived,
        memtable_bytes=committer.memtable_bytes,
        clock_behind_ms=committer.clock.behind_ms,
        checkpoints=count,
        checkpoint_ms_last=last_ms,
        checkpoint=Latency(count, last_ms, mean_ms, checkpointer.max_ms),
        sync=Latency(
            int(log_stats["syncs"]),
            log_stats["sync_us_last"] / 1000,
            log_stats["sync_us_mean"] / 1000,
            log_stats["sync_us_max"] / 1000,
        ),
        collections=collections,
        **_files(path, log_stats, store, fs),
        **_readers(held_views, dict(feed.positions), log.last_lsn),
        minutes=committer.minutes.last_hour(committer.clock.newest_us),
        failures=failures.listed(),
        **maintenance,
    )


def following_stats(path: str, follower: Follower, held_views: HeldViews, fs: FileSystem) -> Stats:
    """The stats of a database that is open read-only."""
    with follower.view() as view:
        tree_bytes = follower.store.tree_bytes()
        collections = {
            name: collection_facts(view, schema, tree_bytes)
            for name, schema in view.catalog.schemas.items()
        }
        applied = view.applied_lsn
        newest = newest_backup(view, follower.manifest.database_id)
        positions = positions_of(view)
        memtable_bytes = sum(memtable.size_bytes for memtable in view.memtables)
    segments = follower.tail.segments()
    log = {"segments": len(segments), "bytes": sum(segment.size for segment in segments)}
    last_lsn = Lsn(follower.visible)
    return Stats(
        path=path,
        read_only=True,
        last_lsn=last_lsn,
        visible_lsn=last_lsn,
        durable_lsn=follower.log.durable_lsn,
        applied_lsn=Lsn(applied),
        archived_lsn=None if newest is None else newest[0],
        memtable_bytes=memtable_bytes,
        clock_behind_ms=follower.clock.behind_ms,
        collections=collections,
        minutes=()
        if follower.status is None
        else follower.status.minutes.last_hour(follower.clock.newest_us),
        **_files(path, log, follower.store.stats(), fs),
        **_readers(held_views, positions, last_lsn),
    )


def _files(
    path: str, log: Mapping[str, Any], store: Mapping[str, int], fs: FileSystem
) -> dict[str, Any]:
    """The fields about files."""
    used, size = store["used_bytes"], store["file_bytes"]
    return {
        "bytes": FileBytes(
            log=int(log["bytes"]),
            log_spare=int(log.get("free_bytes", 0)),
            data_used=used,
            data_free=size - used,
            cache=_folder_bytes(os.path.join(path, FOLDER), fs),
        ),
        "live_share": used / size if size else 1.0,
        "log": dict(log),
        "store": dict(store),
    }


def _readers(held_views: HeldViews, positions: Mapping[str, Lsn], last_lsn: Lsn) -> dict[str, Any]:
    """The fields about snapshots and subscribers."""
    ages_ms = held_views.ages_ms()
    last = lsn_number(last_lsn)
    return {
        "snapshots": len(ages_ms),
        "oldest_snapshot_ms": max(ages_ms, default=0.0),
        "subscribers": dict(positions),
        "subscriber_lag": {name: max(0, last - lsn_number(lsn)) for name, lsn in positions.items()},
    }


def _folder_bytes(folder: str, fs: FileSystem) -> int:
    """The size of the files in a folder; some may be deleted while they are counted."""
    if not fs.is_dir(folder):
        return 0
    size = 0
    for name in fs.listdir(folder):
        try:
            size += os.path.getsize(os.path.join(folder, name))
        except OSError:
            continue
    return size


def collection_facts(view: View, schema: Schema, tree_bytes: Mapping[bytes, int]) -> dict[str, Any]:
    """The facts about a collection that a view and the sizes of the trees provide."""
    older = {index.spec.name for index in schema.all_indexes if index.number in schema.older}
    return {
        "documents": CollectionCounters.unpack(view.get(schema.counters_key)).documents,
        "bytes": sum(
            tree_bytes.get(prefix_of(number), 0) for number in schema.definition.keyspaces
        ),
        "version": schema.definition.version,
        "expires_at": schema.expires_at,
        "indexes": {
            index.spec.name: "migrating"
            if schema.migration is not None
            else "ready"
            if view.is_built(index)
            else "rebuilding"
            if index.spec.name in older
            else "building"
            for index in schema.all_indexes
            if index.number not in schema.older
        },
    }


def _migrating(schema: Schema, migrator: Migrator) -> dict[str, Any] | None:
    migration = schema.migration
    if migration is None:
        return None
    return {
        "from_version": migration.steps[0][0] - 1,
        "functions_missing": migration.missing,
        "documents_read": migrator.read.get(schema.name, 0),
    }


def embedding_facts(view: View, schema: Schema, embedders: Embedders) -> dict[str, Any]:
    """By field the documents that wait for a vector."""
    return {
        queue.spec.fields[0]: {
            "waiting": len(view.keys(queue.prefix, end_of(queue.prefix), sys.maxsize)),
            "error": embedders.failure_of(queue),
        }
        for queue in schema.queues
    }
