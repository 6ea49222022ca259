"""Damage of what search indexes keep in LMDB, value by value: entries of rows, bits of the alive
ones, lists of segments, segments. Noticed by reads or harmless to them, found by check(), mended by
repair() without a loss."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import amberdb
from amberdb import AmberError, Text, Vector
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from support import slices
from support.databases import SMALL
from support.page_damage import in_child
from support.searches import DIM, compare_searches, drawn_text, drawn_vector, small_limits
from unit.engine.helpers import all_pairs, raw_store

DOCUMENTS: Final = 40
EACH: Final = slices.size(10, 4)
LETTERS: Final = {"r": "entry of a row", "a": "alive rows", "l": "list", "s": "segment"}


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A closed database with two segments, rows that are dead, and a file in cache/."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    rng = random.Random(3)
    with small_limits(), amberdb.open(root / "t.amber", **SMALL) as db:
        notes = db.collection("n", indexes=[Text("text"), Vector("v", dim=DIM, metric="l2")])
        for half in range(2):
            notes.put_many(
                {"id": f"{n:03}", "text": drawn_text(rng), "v": drawn_vector(rng).tolist()}
                for n in range(half * 15, half * 15 + DOCUMENTS // 2)
            )
            if not half:
                db.checkpoint()
        compare_searches(db, rng)
    yield root
    shutil.rmtree(root)


def search_keys(path: Path) -> dict[str, list[bytes]]:
    """The keys of the search indexes, by the letter behind the tree."""
    with amberdb.open(path, create=False, **SMALL) as db:
        keyspaces = [
            index.keyspace.to_bytes(KEYSPACE_BYTES) for index in db.definition("n").indexes
        ]
    found: dict[str, list[bytes]] = {letter: [] for letter in LETTERS}
    with raw_store(path) as txn:
        for key, _ in all_pairs(txn):
            if key[:KEYSPACE_BYTES] in keyspaces:
                found[chr(key[KEYSPACE_BYTES])].append(key)
    return found


def damage(path: Path, key: bytes, rng: random.Random) -> None:
    with raw_store(path) as txn:
        value = bytearray(txn.get(key) or b"")
        size = (
            len(value) if chr(key[KEYSPACE_BYTES]) != "a" else DOCUMENTS // 8
        )  # rows that there are
        value[rng.randrange(size)] ^= 1 << rng.randrange(8)
        txn.put(key, bytes(value))


def reads(path: Path) -> str:
    try:
        with amberdb.open(path, create=False, **SMALL) as db:
            compare_searches(db, random.Random(1))
    except AmberError as error:
        return "detected" if str(path) in str(error) else f"no path: {error}"
    except AssertionError as error:
        return f"wrong: {error}"
    return "harmless"


def check(path: Path) -> list[str]:
    return amberdb.check(path, **SMALL).problems


def repair(path: Path) -> str:
    try:
        amberdb.repair(path, apply=True, **SMALL)
        with small_limits(), amberdb.open(path, create=False, **SMALL) as db:
            assert len(db.collection("n")) == DOCUMENTS - 5
            compare_searches(db, random.Random(1))
            db.build_indexes()
            compare_searches(db, random.Random(2))
        assert amberdb.check(path, **SMALL).ok
    except (AmberError, AssertionError) as error:
        return f"not sound: {error!r}"
    return "sound"


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("letter", LETTERS)
def test_a_value_with_a_flipped_bit(made: Path, letter: str) -> None:
    rng = random.Random(letter)
    path = made / "damaged"
    keys = search_keys(made / "t.amber")[letter]
    counts: Counter[str] = Counter()
    for key in rng.sample(keys, min(len(keys), EACH)) + rng.choices(keys, k=EACH // 2):
        where = f"{LETTERS[letter]} {key!r}"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(made / "t.amber", path)
        damage(path, key, rng)
        problems = in_child(lambda: check(path))
        found = in_child(lambda: reads(path))
        assert found in ("detected", "harmless"), f"{where}: {found}"
        assert problems, f"{where}: check() finds nothing"
        assert in_child(lambda: repair(path)) == "sound", where
        counts[found] += 1
    assert counts["detected"] >= EACH // 3, counts
