"""Makes the golden databases of this format version: run once for each version, then never again.

    PYTHONPATH=tests python tests/golden/make.py [TARGET]

    v<format>-closed.tar.gz   closed cleanly, everything in LMDB
    v<format>-killed.tar.gz   killed: part in LMDB, part only in the log, an index half declared
    v<format>.json            the content of both, readable without a codec of AmberDB

Invariants:
- Times, ids and values are fixed, so the content of the files can be read here; only the
  database id and the salts of the log are random.
"""

import io
import json
import shutil
import sys
import tarfile
import tempfile
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import amberdb
from amberdb import REMOVE, Database, Ordered, Unique
from amberdb.engine.storage.manifest import FORMAT_VERSION
from support.databases import SMALL, FakeClock

HERE = Path(__file__).parent
DAY = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
INDEXES: list[Ordered | Unique] = [
    Ordered("entity", "-at"),
    Ordered("n"),
    Ordered("-s", "n"),
    Ordered("tags", "entity", sparse=True),
    Ordered("deep.x", name="inside"),
    Unique("source", sparse=True),
]
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**53 + 1, -(2**63), 2**63 - 1, 0.0, -0.0, 1.5, -1e300,
    float("inf"), float("-inf"), "", "a", "a\0b", "é", "\uffff", "\U0001f600", "下午", b"",
    b"\0\xff", DAY, datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    DAY.astimezone(timezone(timedelta(hours=9))), [], [1, "a", None], {}, {"x": [{"y": None}]},
]  # fmt: skip


def first_half(db: Database, clock: FakeClock) -> None:
    events = db.collection("event", indexes=INDEXES, expires_at="expires")
    events.put_many(
        {
            "id": f"e{n:03}",
            "entity": f"u{n % 3}",
            "at": DAY + timedelta(microseconds=n),
            "n": value,
            "s": "long " * (n * 10) + str(n),
            "tags": [f"t{each}" for each in range(n % 4)],
            "deep": {"x": value},
            "expires": None if n % 5 else DAY + timedelta(days=365 * 400),
        }
        | ({"source": f"s{n}"} if n % 2 else {})
        for n, value in enumerate(VALUES)
    )
    db.collection("plain", required={"id": str, "name": str})
    db.collection("plain").insert({"id": "p1", "name": "one"})
    db.collection("gone", indexes=[Ordered("x")]).put({"id": "g", "x": 1})
    db.collection("gone", indexes=[])
    clock.advance(10)
    events.put({"id": "mayfly", "expires": clock.now + 5})


def second_half(db: Database, clock: FakeClock) -> None:
    events = db.collection("event")
    clock.advance(10)
    events.update("e001", {"n": 100, "deep": {"y": [1]}, "tags": REMOVE})
    events.delete("e002")
    with db.transaction() as tx:
        tx["event"].put({"id": "e003", "n": "whole", "s": "x" * 1000})
        tx["plain"].put({"id": "p2", "name": "two", "of": [{"tx": True}]})
    try:
        with db.transaction() as tx:
            tx["plain"].put({"id": "never", "name": "rolled back"})
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    db.collection("gone").delete("g")
    db.subscriber("reader")
    db.collection("plain", indexes=[Ordered("name")])  # it is not built here


def content(db: Database) -> dict[str, Any]:
    """Everything that the public API returns of a database, as JSON."""
    return {
        name: {
            "indexes": [
                [index.spec.to_map(), index.keyspace, index.complete_from]
                for index in db.definition(name).indexes
            ],
            "expires_at": db.definition(name).expires_at,
            "required": dict(db.definition(name).required),
            "documents": [_record(db, name, id) for id in db.collection(name)],
            "by_n": [doc["id"] for doc in db.collection(name).find(order_by="n")],
            "by_s": [doc["id"] for doc in db.collection(name).find(order_by=["-s", "n"])],
            "inside": [doc["id"] for doc in db.collection(name).find({"deep.x": {"$gte": 0}})],
        }
        for name in db.collections()
    }


def _record(db: Database, name: str, id: str) -> list[Any]:
    record = db.collection(name).record(id)
    assert record.document == db.collection(name).get(id)
    times = [record.created_at.isoformat(), record.updated_at.isoformat()]
    return [id, record.version, *times, repr(record.document)]


def pack(directory: Path, target: Path) -> None:
    """Without LOCK and LMDB's table of readers, which say who had it open; zeros compress."""
    with tarfile.open(target, "w:gz") as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and path.name not in ("LOCK", "lock.mdb"):
                data = path.read_bytes()
                info = tarfile.TarInfo(str(path.relative_to(directory)))
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for state in ("closed", "killed"):
            clock = FakeClock()
            directory = Path(temporary) / f"{state}.amber"
            options: dict[str, Any] = {**SMALL, "clock": clock}
            db = amberdb.open(directory, **options)
            first_half(db, clock)
            db.build_indexes()
            db.checkpoint()
            second_half(db, clock)
            expected = content(db)
            copy = Path(temporary) / f"{state}-copy"
            for thread in threading.enumerate():
                if thread.name == "amberdb-wal-prepare":
                    thread.join()
            if state == "killed":
                shutil.copytree(directory, copy)
            db.close()
            pack(
                copy if state == "killed" else directory,
                target / f"v{FORMAT_VERSION}-{state}.tar.gz",
            )
            text = json.dumps(expected, indent=1, ensure_ascii=True, sort_keys=True)
            (target / f"v{FORMAT_VERSION}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
