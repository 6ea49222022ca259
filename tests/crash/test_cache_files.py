"""Files in cache/ that are damaged, another's, old, or lie: the process lives, and searches find
what they find without."""

import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import amberdb
from amberdb import Text, Vector
from amberdb._bytes import CRC_SIZE, append_crc
from amberdb.engine.storage.cache_file import HEADER_SIZE
from amberdb.index.registry import IndexSpec
from amberdb.index.vector.hnsw import library
from support import slices
from support.cache_files import Lie, Parts, forge
from support.databases import SMALL, assert_sound, audited
from support.page_damage import in_child
from support.searches import (
    DIM,
    compare_searches,
    drawn_text,
    drawn_vector,
    put_on_top,
    small_limits,
)

M: Final = 4
DELETE: Final = "close the database and delete the folder cache/"
ROWS: Final = 60
INDEXES: Final[list[IndexSpec]] = [Text("text"), Vector("v", dim=DIM, metric="l2", m=M)]


def fill(path: Path, seed: int) -> None:
    """Two collections that differ in nothing but their documents, each with a file in cache/ that
    has dead rows too."""
    rng = random.Random(seed)
    with amberdb.open(path, **SMALL) as db:
        for name in ("a", "b"):
            db.collection(name, indexes=INDEXES).put_many(
                {"id": f"{n:03}", "text": drawn_text(rng), "v": drawn_vector(rng).tolist()}
                for n in range(ROWS)
            )
        compare_searches(db, rng)
        db.build_indexes()
        for name in ("a", "b"):
            db.collection(name).delete_many({"id": {"$in": ["000", "004", "008"]}})


class _Kept(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


def search_all(path: Path) -> list[str]:
    """Searches, builds, writes and searches again; the warnings. What it raises is one of them."""
    messages: list[str] = []
    handler = _Kept(messages)
    logger = logging.getLogger("amberdb.engine")
    logger.addHandler(handler)
    rng = random.Random(1)
    try:
        for _ in range(2):
            with small_limits(), amberdb.open(path, create=False, **SMALL) as db:
                compare_searches(db, rng)
                db.build_indexes()
                compare_searches(db, rng)
                put_on_top(db, rng)
                compare_searches(db, rng)
                db.build_indexes()
                assert_sound(db)
    except Exception as error:
        messages.append(f"raised {error!r}")
    finally:
        logger.removeHandler(handler)
    return messages


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A closed database, and another that is its twin but for the numbers in it."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    with small_limits():
        for seed, name in enumerate(("one", "twin")):
            fill(root / name, seed)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def copy(made: Path) -> Iterator[Path]:
    path = made / "copy"
    shutil.copytree(made / "one", path)
    yield path
    shutil.rmtree(path)


def files_of(path: Path) -> list[Path]:
    """Those of a and of b."""
    found = sorted((path / "cache").glob("*.cache"))
    assert len(found) == 2
    return found


def judge(path: Path, finds: str | None) -> None:
    """`finds`: why the file is dropped; None where it may be used. Nobody needs a repair for it."""
    assert amberdb.check(path, **SMALL).ok
    assert not amberdb.repair(path, apply=True, **SMALL).is_needed
    messages = in_child(lambda: search_all(path))
    assert messages is not None, "the process died"
    if finds is None:
        assert messages == []
    else:
        assert all(finds in message for message in messages), messages
        assert messages


# -- lies that pass the checksums ---------------------------------------------------------------


def _set(array: str, at: Any, value: Any) -> Lie:
    def lie(parts: Parts) -> None:
        getattr(parts, array)[at] = value

    return lie


def _cut(array: str, end: int) -> Lie:
    return lambda parts: setattr(parts, array, getattr(parts, array)[:end])


def _without_rows(parts: Parts) -> None:
    parts.rowids, parts.vectors, parts.codes = parts.rowids[:0], parts.vectors[:0], parts.codes[:0]


def _of_another_row(parts: Parts) -> None:
    """The graph lacks the first row, and has the last one twice."""
    parts.places[0] = parts.places[-1]


def _with_a_row_twice(parts: Parts) -> None:
    parts.rowids[3] = parts.rowids[4]


def _with_codes_twice(parts: Parts) -> None:
    parts.codes = np.concatenate((parts.codes, parts.codes))


def _with_rows_missing(parts: Parts) -> None:
    parts.relabel(floor=ROWS)
    parts.rowids, parts.vectors, parts.codes = (
        parts.rowids[:40],
        parts.vectors[: 40 * DIM],
        parts.codes[:0],
    )
    for name in ("places", "levels", "base", "upper"):
        _cut(name, 0)(parts)


LIES: Final[dict[str, tuple[Lie, str | None]]] = {
    "nothing": (lambda _: None, None),
    "a rowid twice": (_with_a_row_twice, "a row twice"),
    "a negative rowid": (_set("rowids", 3, -1), "never given"),
    "a rowid that is not given yet": (_set("rowids", -1, ROWS + 1), "never given"),
    "a rowid that takes all memory": (_set("rowids", -1, 1 << 61), "never given"),
    "fewer rowids than vectors": (_cut("rowids", -2), "vectors"),
    "fewer vectors than rowids": (_cut("vectors", -2 * DIM), "vectors"),
    "part of a vector": (_cut("vectors", -1), "reshape"),
    "more codes than vectors": (_with_codes_twice, "more codes than vectors"),
    "part of a code": (_cut("codes", -1), "codes of"),
    "no codes": (_cut("codes", 0), None),
    "no rows, and a graph": (_without_rows, "other rows than the file"),
    "an Lsn in the future": (lambda parts: parts.relabel(lsn=1 << 50), "the log ends at"),
    "an Lsn of long ago": (lambda parts: parts.relabel(lsn=0), None),
    "another tree": (
        lambda parts: parts.relabel(keyspace=parts.label.keyspace + 1),
        "another index",
    ),
    "another configuration": (
        lambda parts: parts.relabel(configuration=bytes(16)),
        "another declaration",
    ),
    "a floor past the last row": (lambda parts: parts.relabel(floor=1 << 40), "past the last row"),
    "a floor within the rows": (lambda parts: parts.relabel(floor=ROWS // 2), None),
    "a floor, and rows below it that are not there": (_with_rows_missing, None),
    "a graph with a row twice": (_of_another_row, "wrong places"),
    "a graph of rows that are not there": (_set("places", 0, ROWS + 50), "other rows"),
    "a graph with a negative rowid": (_set("places", 0, -5), "wrong places"),
    "a graph cut in the middle": (_cut("base", -5), "reshape"),
    "a graph without levels": (_cut("levels", 0), "wrong levels"),
    "a negative level": (_set("levels", 0, -1), "wrong levels"),
    "a level that is too high": (_set("levels", 0, 1 << 30), "above level 0"),
    "too many links": (_set("base", 0, 2 * M + 1), "a link of level 0"),
    "a count that looks like a deletion": (_set("base", 0, 1 << 16), "a link of level 0"),
    "a link out of bounds": (_set("base", slice(1, 1 + 2 * M), 1 << 31), "a link of level 0"),
    "a link above level 0 out of bounds": (
        _set("upper", slice(0, M + 1), [M] + [ROWS] * M),
        "a link above level 0",
    ),
    "a link to a row that is not of this level": (
        lambda parts: _set("upper", slice(0, 2), [1, int(np.argmin(parts.levels))])(parts),
        "a link above level 0",
    ),
    "no links at all": (_set("base", slice(None), 0), "no links for a row"),
    "all links to one row": (
        lambda parts: parts.base.reshape(-1, 2 * M + 1)[:, 1:].fill(0),
        None,
    ),
}


@pytest.mark.skipif(library() is None, reason="needs the extra hnsw")
@pytest.mark.parametrize("name", slices.parameters(3, LIES))
def test_a_file_that_lies(copy: Path, name: str) -> None:
    lie, finds = LIES[name]
    forge(files_of(copy)[0], lie)
    judge(copy, finds)


def test_check_finds_codes_that_are_not_of_the_vectors(copy: Path) -> None:
    def lie(parts: Parts) -> None:
        parts.codes[:] = ~parts.codes

    forge(files_of(copy)[0], lie)
    with amberdb.open(copy, create=False, **SMALL) as db:
        (problem,) = db.check().problems
        assert problem.startswith("a: vector:v: row 1 has another code in cache/")


@pytest.mark.parametrize(("array", "row"), [("rowids", 7), ("vectors", 6)])
def test_check_finds_vectors_that_are_not_the_documents(copy: Path, array: str, row: int) -> None:
    """No checksum and no count is wrong: only a comparison tells."""

    def lie(parts: Parts) -> None:
        if array == "vectors":
            parts.vectors[5 * DIM] += 1
        else:
            parts.rowids[[5, 6]] = parts.rowids[[6, 5]]

    file = files_of(copy)[0]
    forge(file, lie)
    with amberdb.open(copy, create=False, **SMALL) as db:
        problems = db.check().problems
        assert problems == [f"a: vector:v: row {row} has another vector in cache/: {DELETE}"]
    file.unlink()
    with audited(copy, create=False):
        pass


# -- other files --------------------------------------------------------------------------------


def _resealed(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """With other bytes in the header, and its checksum made for them."""

    def change(data: bytes) -> bytes:
        header = bytearray(data[: HEADER_SIZE - CRC_SIZE])
        header[at : at + len(value)] = value
        return bytes(header) + append_crc(bytes(header)) + data[HEADER_SIZE:]

    return change


SIZE_AT: Final = 64
FILES: Final[dict[str, tuple[Callable[[bytes], bytes], str]]] = {
    "empty": (lambda data: b"", "header is damaged"),
    "half a header": (lambda data: data[:100], "header is damaged"),
    "half": (lambda data: data[: len(data) // 2], "bytes instead of"),
    "one byte less": (lambda data: data[:-1], "bytes instead of"),
    "one byte more": (lambda data: data + b"\0", "bytes instead of"),
    "zeros": (lambda data: bytes(len(data)), "header is damaged"),
    "another version": (_resealed(8, b"\xff\xff\xff\xff"), "another format"),
    "a huge count": (_resealed(SIZE_AT, b"\xff" * 8), "bytes instead of"),
    "a count of all that there is": (
        _resealed(SIZE_AT, (1 << 40).to_bytes(8, "little")),
        "bytes instead of",
    ),
    "sections of no size": (_resealed(SIZE_AT, bytes(16 * 7)), "bytes instead of"),
}


@pytest.mark.parametrize("name", slices.parameters(3, FILES))
def test_a_file_that_is_not_as_it_was(copy: Path, name: str) -> None:
    change, finds = FILES[name]
    file = files_of(copy)[0]
    file.write_bytes(change(file.read_bytes()))
    judge(copy, finds)


def test_a_file_of_another_database(copy: Path, made: Path) -> None:
    for own, other in zip(files_of(copy), files_of(made / "twin"), strict=True):
        assert own.name == other.name
        shutil.copy(other, own)
    judge(copy, "another database")


def test_files_of_two_indexes_that_changed_places(copy: Path) -> None:
    first, second = files_of(copy)
    aside = first.read_bytes()
    second.replace(first)
    second.write_bytes(aside)
    judge(copy, "another index")


def test_an_older_file_of_the_same_index(copy: Path) -> None:
    """Behind it rows died and came, and all the rest was moved into LMDB."""
    old = {file: file.read_bytes() for file in files_of(copy)}
    assert in_child(lambda: search_all(copy)) == []
    for file, data in old.items():
        assert file.read_bytes() != data
        file.write_bytes(data)
    judge(copy, None)


def test_a_file_of_an_index_that_was_declared_anew(copy: Path) -> None:
    old = files_of(copy)[0].read_bytes()
    with amberdb.open(copy, create=False, **SMALL) as db:
        db.collection("a", indexes=[])
        db.collection("a", indexes=INDEXES)
        db.build_indexes()
        number = max(index.keyspace for index in db.definition("a").indexes)
    (copy / "cache" / f"{number}.cache").write_bytes(old)
    judge(copy, "another index")


def test_what_else_is_in_the_folder(copy: Path) -> None:
    folder = copy / "cache"
    own = ("19.cache.tmp", f"19.cache.amber-{19:016x}.tmp", "77.cache")
    others = ("notes.txt", "x.cache", "x.tmp")
    for name in (*own, *others):
        (folder / name).write_bytes(b"half")
    messages = in_child(lambda: search_all(copy))
    assert messages is not None
    assert len(messages) == len(own), messages
    assert len(list(folder.iterdir())) == 2 + len(others)


@pytest.mark.slow
@pytest.mark.sliced
def test_a_page_of_a_file_that_is_another_or_zeros(copy: Path) -> None:
    """In sectors, as a device may lose them; test_cachefile.py flips every byte."""
    rng = random.Random(5)
    file = files_of(copy)[0]
    data = file.read_bytes()
    for start in slices.every(3, range(0, len(data), 512)):
        for sector in (bytes(512), rng.randbytes(512), data[:512]):
            damaged = data[:start] + sector[: len(data) - start] + data[start + 512 :]
            if damaged == data:
                continue
            target = copy.with_name("damaged")
            shutil.copytree(copy, target)
            (target / "cache" / file.name).write_bytes(damaged)
            judge(target, "damaged")
            shutil.rmtree(target)
