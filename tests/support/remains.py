"""What is left of a document: a database that deletes some, and a look for them in every file.

Words and vectors are looked for in the raw bytes of each file, vectors as they were given and as
they are normalised, also off by what arithmetic may change; and once more in what the containers
hold: pairs of data.mdb, records of the log, sections of files in cache/.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amberdb import Database, Lsn, Ordered, Text, Unique, Vector
from amberdb._fs import OsFileSystem
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.cache_file import SECTIONS_MAX, Cached
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.trees import scan
from amberdb.index.registry import IndexSpec
from amberdb.wal import Record
from amberdb.wal.recovery import list_directory, load_segments, read_segments

DIM = 16
INDEXES: list[IndexSpec] = [
    Ordered("n"),
    Unique("key", sparse=True),
    Text("content"),
    Vector("v", dim=DIM, metric="cosine"),
]


def vector(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal(DIM).astype(np.float32)


def document(number: int, word: str = "kept") -> dict[str, Any]:
    content = f"{word}unique{number}word tea"
    return {"id": str(number), "n": number, "content": content, "v": vector(number)}


def filled(db: Database) -> Database:
    """A hundred documents of which forty stay, over several checkpoints."""
    memory = db.collection("memory", indexes=INDEXES, expires_at="dies")
    for start in range(0, 100, 20):
        memory.put_many(document(number) for number in range(start, start + 20))
        db.checkpoint()
    memory.search(vector=vector(1))
    memory.delete_many({"n": {"$gte": 40}})
    return db


def state_of(source: Any) -> Any:
    """All that can be found, in every way."""
    memory = source.collection("memory")
    return (
        [{**d, "v": d["v"].tolist()} for d in memory.find(order_by="n")],
        len(memory),
        memory.count({"n": {"$gt": 7}}),
        [(hit.id, hit.score) for hit in memory.search("tea", limit=100)],
        [(hit.id, hit.score) for hit in memory.search(vector=vector(3), limit=100)],
    )


def left_of(path: str, number: int, word: str = "kept") -> list[str]:
    """Where something of a document is: names of files, and what is in them."""
    return looked(path, [number], word)[number]


def looked(path: str, numbers: Iterable[int], word: str = "kept") -> dict[int, list[str]]:
    """The same for several, which are looked for together."""
    found: dict[int, list[str]] = {number: [] for number in numbers}
    forms = [(number, form) for number in found for form in _forms(number)]
    forms.sort(key=lambda item: item[1][0])
    firsts = np.array([form[0] for _, form in forms], "<f4")
    for name, data in (*files_of(path), *_contents(path)):
        for number in found:
            if f"{word}unique{number}word".encode() in data:
                found[number].append(name)
        for start in range(4):
            floats = np.frombuffer(data[start : len(data) - (len(data) - start) % 4], "<f4")
            for at, form in _starts(floats, firsts):
                number, wanted = forms[form]
                if np.allclose(floats[at : at + DIM], wanted, rtol=1e-5, atol=1e-7):
                    found[number].append(name)
    return found


def _forms(number: int) -> list[NDArray[np.float32]]:
    raw = vector(number)
    return [raw, (raw / np.linalg.norm(raw.astype(np.float64))).astype(np.float32)]


def _starts(floats: NDArray[np.float32], firsts: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Where a vector may begin, and which; `firsts` ascend."""
    floats = floats[: max(0, len(floats) - DIM + 1)]
    above = np.searchsorted(firsts, floats)
    for near in (above, above - 1):
        near = np.clip(near, 0, len(firsts) - 1)
        with np.errstate(all="ignore"):  # most of it is no floats
            is_near = np.abs(floats - firsts[near]) <= 1e-5 * np.abs(firsts[near])
        (places,) = np.nonzero(is_near)
        yield from zip(places.tolist(), near[places].tolist(), strict=True)


def files_of(path: str) -> Iterator[tuple[str, bytes]]:
    for where, _, names in os.walk(path):
        for name in names:
            yield os.path.join(where, name), Path(where, name).read_bytes()


def _contents(path: str) -> Iterator[tuple[str, bytes]]:
    """What the containers hold, decoded from copies: nothing is opened twice in one process."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(path, Path(scratch, "copy"))
        for data in copy.glob("data-*/data.mdb"):
            store = Store(
                str(data.parent), fs=OsFileSystem(), create=False, map_bytes=1 << 30, read_only=True
            )
            txn = store.begin()
            for prefix in store.trees.keyspaces(txn):
                cursor = store.trees.cursor(txn, prefix)
                for key, value in scan(cursor, prefix, end_of(prefix)):
                    yield f"a pair of {data}", key + b" " + value
            txn.abort()
            store.close()
        fs = OsFileSystem()
        manifest = manifests.read(fs, str(copy))
        names, _ = list_directory(fs, str(copy / "wal"), clean=False)
        records: list[Record] = []
        segments = load_segments(fs, names, manifest.database_id)
        read_segments(fs, segments, records.append, Lsn(0))
        for record in records:
            for name, effect in decode_effects(record.payload).items():
                yield f"record {record.lsn}", name + b" " + (effect or b"")
        for file in copy.glob("cache/*"):
            cached = Cached(memoryview(file.read_bytes()), manifest.database_id)
            for number in range(SECTIONS_MAX):
                yield f"section {number} of {file}", bytes(cached.section(number))
