"""`python -m bench.options`: what an option or an index costs a write, beside a collection without.

    put        puts of one thread, one commit each
    put_many   commits of 1,000, per document
    bytes      bytes in use of data.mdb for each document, when all is settled

Invariants:
- Indexes are compared with sync="os" and in processor time of the whole process, which neither the
  disk nor another program changes; durability classes in wall time, which is their cost.
- The conditions take turns within each round, each with a database of its own and the same
  documents; a ratio is of figures of one round, and the figure is the median of the rounds.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import amberdb
from amberdb import Collection, Database, IndexSpec, Ordered, Sync, Text, Unique, Vector
from bench.workloads.events import Document, documents
from bench.workloads.vectors import vectors

DOCUMENTS = 5_000
PUTS = 300
BATCH = 1_000
DIM = 384
PARTS = ("put", "put_many", "put_wall", "put_many_wall")
FAR = datetime(2099, 1, 1, tzinfo=UTC)
"""The expiry of documents that have one."""


@dataclass(frozen=True)
class Condition:
    """One way to open a database and to declare its collection."""

    indexes: tuple[IndexSpec, ...] = ()
    sync: Sync = "os"
    expires_at: str | None = None
    has_vectors: bool = False


CONDITIONS = {
    "no index": Condition(),
    "one Ordered": Condition((Ordered("entity_id", "created_at"),)),
    "three Ordered": Condition(
        (
            Ordered("entity_id", "created_at"),
            Ordered("created_at"),
            Ordered("category", "created_at"),
        )
    ),
    "Unique": Condition((Unique("created_at"),)),
    "Text": Condition((Text("content"),)),
    "the same vector as bytes": Condition(has_vectors=True),
    "Vector of 384 numbers": Condition((Vector("embedding", dim=DIM),), has_vectors=True),
    "expires_at": Condition(expires_at="expiry_date"),
    'sync="interval"': Condition(sync="interval"),
    'sync="always"': Condition(sync="always"),
}
BASE = "no index"


class Open:
    """A condition, open, with documents of its own."""

    def __init__(self, condition: Condition, path: Path) -> None:
        self.db: Database = amberdb.open(path, sync=condition.sync)
        self.events: Collection = self.db.collection(
            "event", indexes=condition.indexes, expires_at=condition.expires_at
        )
        self._documents = _documents(condition)
        self.events.put_many(self._take(DOCUMENTS))
        self.db.checkpoint()

    def _take(self, count: int) -> list[Document]:
        return list(islice(self._documents, count))

    def round(self) -> dict[str, float]:
        """Microseconds of a put, and of a document of a put_many, in wall and processor time."""
        singly, batch = self._take(PUTS), self._take(BATCH)
        began = _now()
        for document in singly:
            self.events.put(document)
        between = _now()
        self.events.put_many(batch)
        done = _now()
        return {
            "put_wall": (between[0] - began[0]) / PUTS * 1e6,
            "put": (between[1] - began[1]) / PUTS * 1e6,
            "put_many_wall": (done[0] - between[0]) / BATCH * 1e6,
            "put_many": (done[1] - between[1]) / BATCH * 1e6,
        }

    def bytes_each(self) -> float:
        self.db.build_indexes()
        self.db.checkpoint()
        return self.db.stats().bytes.data_used / self.events.count()

    def close(self) -> None:
        self.db.close()


def _now() -> tuple[float, float]:
    """Seconds of wall time and of processor time."""
    return time.perf_counter(), time.process_time()


def _documents(condition: Condition) -> Iterator[Document]:
    number = 0
    while True:
        found = vectors(number, BATCH, DIM) if condition.has_vectors else None
        for place, document in enumerate(documents(number, BATCH)):
            more: Document = {}
            if found is not None:
                vector = found[place]
                more["embedding"] = vector if condition.indexes else vector.tobytes()
            if condition.expires_at is not None:
                more[condition.expires_at] = FAR
            yield {**document, **more}
        number += BATCH


def run(directory: Path, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONDITIONS}
    names = list(CONDITIONS)
    with ExitStack() as stack:
        opened: dict[str, Open] = {}
        for place, (name, condition) in enumerate(CONDITIONS.items()):
            opened[name] = Open(condition, directory / f"{place}.amber")
            stack.callback(opened[name].close)
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(opened[name].round())
            print(f"round {turn + 1}", flush=True)
        size = {name: one.bytes_each() for name, one in opened.items()}
    return {"ratios": _ratios(found, size), "rounds": found, "bytes": size}


def _ratios(
    found: dict[str, list[dict[str, float]]], size: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Medians of the rounds, over those of the collection without indexes."""

    def ratio(rounds: list[dict[str, float]], part: str) -> float:
        pairs = zip(rounds, found[BASE], strict=True)
        return round(median(one[part] / base[part] for one, base in pairs), 2)

    return {
        name: {
            **{part: ratio(rounds, part) for part in PARTS},
            "bytes": round(size[name] / size[BASE], 2),
        }
        for name, rounds in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.options", description="what options and indexes cost a write"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = run(Path(directory), options.rounds)
    result |= {
        "command": "python -m bench.options " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
