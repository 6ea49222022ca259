"""OpenTelemetry: what db.stats() tells, as instruments that are read when metrics are collected.

    from amberdb.telemetry import observe
    observe(db)

The extra `amberdb[otel]` brings the API; the program brings an SDK and says where metrics go.

Invariants:
- Nothing happens between two collections, and one collection takes stats() once.
- A database that was closed is told no more, and a collection of metrics never fails for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

import amberdb
from amberdb._errors import AmberError
from amberdb.engine.database.database import Database
from amberdb.engine.database.stats import Latency, Stats

Found: TypeAlias = Iterable[tuple[float, Mapping[str, str]]]
"""Values, each with its attributes."""


def observe(db: Database, meter: Meter | None = None) -> None:
    """Makes the instruments `amberdb.*` of one database, whose path is an attribute of each value.
    Without a meter it is that of the global provider."""
    meter = meter or get_meter("amberdb", amberdb.__version__)
    reading = _Reading(db)
    for name, (unit, what, found) in _GAUGES.items():
        callback = reading.callback(name, found)
        meter.create_observable_gauge(name, [callback], unit, what)
    for name, (unit, what, found) in _COUNTERS.items():
        callback = reading.callback(name, found)
        meter.create_observable_counter(name, [callback], unit, what)


class _Reading:
    """One stats() for all instruments of a collection: taken anew when one of them asks again."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stats: Stats | None = None
        self._asked: set[str] = set()

    def callback(
        self, name: str, found: Callable[[Stats], Found]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observed(_: CallbackOptions) -> Iterator[Observation]:
            stats = self._taken(name)
            if stats is not None:
                for value, attributes in found(stats):
                    yield Observation(value, {"path": stats.path, **attributes})

        return observed

    def _taken(self, name: str) -> Stats | None:
        """None when the database is closed, or cannot be read."""
        if self._stats is None or name in self._asked:
            self._asked.clear()
            try:
                self._stats = self._db.stats()
            except AmberError:
                self._stats = None
        self._asked.add(name)
        return self._stats


def _lsns(stats: Stats) -> Found:
    for which in ("last", "visible", "durable", "applied", "archived"):
        lsn: int | None = stats[f"{which}_lsn"]
        if lsn is not None:
            yield lsn, {"which": which}


def _bytes(stats: Stats) -> Found:
    kinds: dict[str, int] = stats.to_map()["bytes"]
    return ((size, {"kind": kind}) for kind, size in kinds.items())


def _latency(latency: Latency) -> Found:
    return (
        (latency.last_ms, {"which": "last"}),
        (latency.mean_ms, {"which": "mean"}),
        (latency.max_ms, {"which": "max"}),
    )


def _dead_rows(stats: Stats) -> Found:
    for name, one in stats.collections.items():
        for index, facts in one.get("search", {}).items():
            if "dead" in facts:
                yield facts["dead"], {"collection": name, "index": index}


def _waiting(stats: Stats) -> Found:
    for name, one in stats.collections.items():
        for field, facts in one.get("embedding", {}).items():
            yield facts["waiting"], {"collection": name, "field": field}


def _documents(stats: Stats) -> Found:
    return ((one["documents"], {"collection": name}) for name, one in stats.collections.items())


def _lag(stats: Stats) -> Found:
    return ((lag, {"subscriber": name}) for name, lag in stats.subscriber_lag.items())


_Instruments: TypeAlias = dict[str, tuple[str, str, Callable[[Stats], Found]]]
"""By name: unit, what it is, and its values."""

_GAUGES: Final[_Instruments] = {
    "amberdb.lsn": ("1", "Places in the log.", _lsns),
    "amberdb.disk.usage": ("By", "Bytes on the disk, by kind.", _bytes),
    "amberdb.data.live_share": (
        "1",
        "Of data.mdb, what is in use.",
        lambda s: [(s.live_share, {})],
    ),
    "amberdb.memtable.usage": ("By", "Commits in memory.", lambda s: [(s.memtable_bytes, {})]),
    "amberdb.sync.duration": ("ms", "Syncs of the log.", lambda s: _latency(s.sync)),
    "amberdb.checkpoint.duration": ("ms", "Checkpoints.", lambda s: _latency(s.checkpoint)),
    "amberdb.snapshot.count": ("{snapshot}", "Open snapshots.", lambda s: [(s.snapshots, {})]),
    "amberdb.snapshot.age": ("ms", "The oldest one.", lambda s: [(s.oldest_snapshot_ms, {})]),
    "amberdb.subscriber.lag": ("{commit}", "Commits that wait for a subscriber.", _lag),
    "amberdb.documents": ("{document}", "Documents, expired ones too.", _documents),
    "amberdb.embedding.waiting": ("{document}", "Documents that wait for a vector.", _waiting),
    "amberdb.vector.dead": ("{row}", "Dead rows of loaded vector indexes.", _dead_rows),
}
_COUNTERS: Final[_Instruments] = {
    "amberdb.sync.count": ("{sync}", "Syncs of the log.", lambda s: [(s.sync.count, {})]),
    "amberdb.checkpoint.count": ("{checkpoint}", "Done.", lambda s: [(s.checkpoint.count, {})]),
}
