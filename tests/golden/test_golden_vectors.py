"""A database with vectors in their blocks opens, and has all of them."""

import tarfile
from pathlib import Path

import numpy as np

from amberdb import Database, Document
from golden.make_vectors import COUNT, INDEXES, NAME, document, main
from support.databases import OpenDatabase
from support.reference import same

HERE = Path(__file__).parent


def wanted() -> dict[str, Document]:
    kept = {
        each["id"]: each
        for each in map(document, range(COUNT + 1))
        if each["n"] % 7 or each["n"] == COUNT
    }
    del kept["003"]
    kept["001"]["v"] = [9, 9, 9]
    for each in kept.values():
        for name in ("v", "dropped"):
            each[name] = np.array(each[name], np.float32)
        each["many"] = np.array(each["many"], np.float32).reshape(-1, 2)
    # Written after the drop: lists, as they were given.
    kept["002"]["dropped"] = [0.5, 0.5]
    kept[f"{COUNT:03}"]["dropped"] = document(COUNT)["dropped"]
    return kept


def assert_has_all(db: Database) -> None:
    notes = db["notes"]
    documents = wanted()
    assert same({each["id"]: each for each in notes.documents()}, documents)
    db.collection("notes", indexes=INDEXES[:2])
    db.build_indexes()
    for id, each in documents.items():
        assert notes.search(vector={"v": each["v"]}, limit=1)[0].id == id
    db.compact()
    assert same({each["id"]: each for each in notes.documents()}, documents)


def test_it_has_all(tmp_path: Path, open_db: OpenDatabase) -> None:
    with tarfile.open(HERE / NAME) as archive:
        archive.extractall(tmp_path / "t.amber", filter="data")
    assert_has_all(open_db())


def test_make_still_makes_the_same(tmp_path: Path, open_db: OpenDatabase) -> None:
    main(tmp_path)
    with tarfile.open(tmp_path / NAME) as archive:
        archive.extractall(tmp_path / "t.amber", filter="data")
    assert_has_all(open_db())
