"""OpenTelemetry instruments that read db.stats() when metrics are collected.

    from amberdb.telemetry import observe
    observe(db)

The extra `amberdb[otel]` installs the API; the program installs an SDK and configures the exporter.

Invariants:
- One collection calls stats() once; between collections nothing runs.
- A database that was closed yields no values, and never makes a collection fail.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

import amberdb
from amberdb import AmberError, Database, Latency, Stats

Values: TypeAlias = Iterable[tuple[float, Mapping[str, str]]]
"""Values of an instrument, each with its attributes."""


def observe(db: Database, meter: Meter | None = None) -> None:
    """Creates the instruments `amberdb.*` for one database; its path is an attribute of each value.
    By default they belong to the global meter provider."""
    meter = meter or get_meter("amberdb", amberdb.__version__)
    reading = _Reading(db)
    for name, (unit, description, values) in _GAUGES.items():
        callback = reading.callback(name, values)
        meter.create_observable_gauge(name, [callback], unit, description)
    for name, (unit, description, values) in _COUNTERS.items():
        callback = reading.callback(name, values)
        meter.create_observable_counter(name, [callback], unit, description)


class _Reading:
    """One stats() for all instruments of a collection: it is taken again when an instrument reads a
    second time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stats: Stats | None = None
        self._readers: set[str] = set()
        """Instruments that have read the present stats."""

    def callback(
        self, name: str, values: Callable[[Stats], Values]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """The callback of an instrument."""

        def observed(_: CallbackOptions) -> Iterator[Observation]:
            stats = self._taken(name)
            if stats is not None:
                for value, attributes in values(stats):
                    yield Observation(value, {"path": stats.path, **attributes})

        return observed

    def _taken(self, name: str) -> Stats | None:
        """The stats for an instrument; None when the database is closed or unreadable."""
        if self._stats is None or name in self._readers:
            self._readers.clear()
            try:
                self._stats = self._db.stats()
            except AmberError:
                self._stats = None
        self._readers.add(name)
        return self._stats


def _lsns(stats: Stats) -> Values:
    for which in ("last", "visible", "durable", "applied", "archived"):
        lsn: int | None = stats[f"{which}_lsn"]
        if lsn is not None:
            yield lsn, {"which": which}


def _bytes(stats: Stats) -> Values:
    kinds: dict[str, int] = stats.to_map()["bytes"]
    return ((size, {"kind": kind}) for kind, size in kinds.items())


def _latency(latency: Latency) -> Values:
    return (
        (latency.last_ms, {"which": "last"}),
        (latency.mean_ms, {"which": "mean"}),
        (latency.max_ms, {"which": "max"}),
    )


def _dead_rows(stats: Stats) -> Values:
    for name, one in stats.collections.items():
        for index, facts in one.get("search", {}).items():
            if "dead" in facts:
                yield facts["dead"], {"collection": name, "index": index}


def _waiting(stats: Stats) -> Values:
    for name, one in stats.collections.items():
        for field, facts in one.get("embedding", {}).items():
            yield facts["waiting"], {"collection": name, "field": field}


def _documents(stats: Stats) -> Values:
    return ((one["documents"], {"collection": name}) for name, one in stats.collections.items())


def _lag(stats: Stats) -> Values:
    return ((lag, {"subscriber": name}) for name, lag in stats.subscriber_lag.items())


_Instruments: TypeAlias = dict[str, tuple[str, str, Callable[[Stats], Values]]]
"""By name: unit, description and values."""

_GAUGES: Final[_Instruments] = {
    "amberdb.lsn": ("1", "Lsns: positions in the log.", _lsns),
    "amberdb.disk.usage": ("By", "Bytes on the disk, by kind.", _bytes),
    "amberdb.data.live_share": (
        "1",
        "Share of data.mdb that is in use.",
        lambda s: [(s.live_share, {})],
    ),
    "amberdb.memtable.usage": (
        "By",
        "Memory of commits that are not checkpointed.",
        lambda s: [(s.memtable_bytes, {})],
    ),
    "amberdb.sync.duration": ("ms", "Duration of syncs of the log.", lambda s: _latency(s.sync)),
    "amberdb.checkpoint.duration": (
        "ms",
        "Duration of checkpoints.",
        lambda s: _latency(s.checkpoint),
    ),
    "amberdb.snapshot.count": ("{snapshot}", "Open snapshots.", lambda s: [(s.snapshots, {})]),
    "amberdb.snapshot.age": (
        "ms",
        "Age of the oldest open snapshot.",
        lambda s: [(s.oldest_snapshot_ms, {})],
    ),
    "amberdb.subscriber.lag": ("{commit}", "Commits that a subscriber has not acknowledged.", _lag),
    "amberdb.documents": ("{document}", "Documents, with expired ones.", _documents),
    "amberdb.embedding.waiting": ("{document}", "Documents without their vector yet.", _waiting),
    "amberdb.vector.dead": ("{row}", "Dead rows of loaded vector indexes.", _dead_rows),
}
_COUNTERS: Final[_Instruments] = {
    "amberdb.sync.count": ("{sync}", "Syncs of the log.", lambda s: [(s.sync.count, {})]),
    "amberdb.checkpoint.count": (
        "{checkpoint}",
        "Checkpoints.",
        lambda s: [(s.checkpoint.count, {})],
    ),
}
