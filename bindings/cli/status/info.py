"""The commands info and stats.

Invariants:
- They change nothing. Of latencies they show those that the process that writes has stored, minute
  by minute.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from amberdb import Database, QueryError
from amberdb._jsonl.text import iso
from amberdb.cli.arguments import COUNT_MAX, AsJson, DatabasePath, OutputFormat, positive
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.output import emit, grid, properties, show
from amberdb.cli.verb import opened_read_only, verb


@verb
def info(path: DatabasePath, as_json: AsJson = False) -> None:
    """Shows collections, Lsns, bytes on disk and subscribers. Of collections their counts, versions
    and indexes, and of each subscriber how far it is behind."""
    with opened_read_only(path) as db:
        stats = db.stats().to_map()
    if as_json:
        emit(stats)
        return
    collections = stats.pop("collections")
    stats.pop("minutes")  # `stats --minutes` has them
    plain = {name: value for name, value in stats.items() if not isinstance(value, dict)}
    for part in ("bytes", "log", "store"):  # latencies belong to the process that writes
        plain |= {f"{part} {name}": value for name, value in stats[part].items()}
    show(properties("database", plain))
    rows = [
        (
            name,
            facts["documents"],
            _version_words(facts),
            facts["expires_at"],
            "\n".join(_index_words(facts["indexes"])),
        )
        for name, facts in collections.items()
    ]
    show(grid("collections", ("name", "documents", "version", "expires at", "indexes"), rows))
    if stats["subscribers"]:
        lags = stats["subscriber_lag"]
        positions = [(name, str(lsn), lags[name]) for name, lsn in stats["subscribers"].items()]
        show(grid("subscribers", ("name", "position", "lag in commits"), positions))


@verb
def stats(
    path: DatabasePath,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again and again, with rates, until interrupted.")
    ] = False,
    every_s: Annotated[
        float,
        typer.Option(
            "--every-s",
            metavar="SECONDS",
            help="With --watch: the time between two samples.",
            callback=positive,
        ),
    ] = 1.0,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            metavar="N",
            min=1,
            max=COUNT_MAX,
            help="With --watch: end after so many.",
        ),
    ] = None,
    minutes: Annotated[
        bool,
        typer.Option(
            "--minutes",
            help="What was written in each of the last 60 minutes, with latencies.",
        ),
    ] = False,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Shows how much is stored and written, once or with --watch. Each sample is one line."""
    kind = chosen(format, as_json)
    if watch and (minutes or kind not in ("json", "table")):
        raise QueryError("--watch is for a table or --json, and not for --minutes")
    with opened_read_only(path) as db:
        if minutes:
            rows = db.stats().to_map()["minutes"]
            show_rows("minutes", list(rows[0]) if rows else ["time"], rows, kind)
        elif watch:
            _watch(_samples(db, every_s, samples), kind)
        else:
            sample = next(_samples(db, every_s, 1))
            if kind == "json":
                emit(sample)
            elif kind == "table":
                show(properties("stats", sample))
            else:
                show_rows("stats", list(sample), [sample], kind)


# -- inside --------------------------------------------------------------------------------------

_HEAD_EVERY = 20
"""Samples below each line of names."""

_EPOCH = 1 << 32
_PAUSE = threading.Event()

_COLUMNS = {
    "time": 8,
    "commits_per_s": 13,
    "documents": 11,
    "documents_per_s": 15,
    "log_bytes": 9,
    "data_bytes": 10,
    "free_bytes": 10,
    "memtable_bytes": 14,
    "lag": 8,
}


def _watch(samples: Iterable[dict[str, Any]], kind: str) -> None:
    """Prints a line for each sample, as it comes."""
    for number, sample in enumerate(samples):
        if kind == "json":
            emit(sample)
        else:
            if not number % _HEAD_EVERY:
                print(_line({name: name for name in _COLUMNS}))
            print(_line({name: _short(sample[name]) for name in _COLUMNS}))
        sys.stdout.flush()


def _line(cells: dict[str, str]) -> str:
    return "  ".join(f"{cells[name]:>{width}}" for name, width in _COLUMNS.items())


def _samples(db: Database, every_s: float, count: int | None) -> Iterator[dict[str, Any]]:
    """So many samples, or without end."""
    before: dict[str, Any] | None = None
    at = time.monotonic()
    number = 0
    while True:
        sample = _sample(db)
        now = time.monotonic()
        for name, total in (("commits_per_s", "lsn"), ("documents_per_s", "documents")):
            more = None if before is None else sample[total] - before[total]
            # An unclean end puts an Lsn far ahead: that is not what was written meanwhile.
            is_rate = more is not None and abs(more) < _EPOCH and now > at
            sample[name] = round(more / (now - at), 1) if more is not None and is_rate else None
        yield sample
        before, at, number = sample, now, number + 1
        if number == count:
            return
        _PAUSE.wait(min(every_s, threading.TIMEOUT_MAX))


def _sample(db: Database) -> dict[str, Any]:
    stats = db.stats()
    return {
        "time": iso(datetime.now(UTC).replace(microsecond=0)),
        "lsn": int(stats.visible_lsn),
        "documents": sum(facts["documents"] for facts in stats.collections.values()),
        "collections": len(stats.collections),
        "log_bytes": stats.bytes.log,
        "data_bytes": stats.bytes.data_used,
        "free_bytes": stats.bytes.data_free,
        "cache_bytes": stats.bytes.cache,
        "memtable_bytes": stats.memtable_bytes,
        "subscribers": len(stats.subscribers),
        "lag": max(stats.subscriber_lag.values(), default=0),
        "last_backup_lsn": stats.archived_lsn,
    }


def _short(value: Any) -> str:
    """A value in a few characters: 12,345 and 1.2M."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value[11:19]
    for unit, size in (("G", 1 << 30), ("M", 1 << 20)):
        if abs(value) >= 10 * size:
            return f"{value / size:,.1f}{unit}"
    return f"{value:,}"


def _version_words(collection: dict[str, Any]) -> str:
    migrating = "" if collection.get("migrating") is None else " (migrating)"
    return f"{collection['version']}{migrating}"


def _index_words(indexes: dict[str, str]) -> list[str]:
    return [name if state == "ready" else f"{name} ({state})" for name, state in indexes.items()]
