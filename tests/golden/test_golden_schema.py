"""A database that was killed during a migration and a drop opens, and both continue."""

import tarfile
from pathlib import Path

from amberdb import Database, MigrationError
from golden.make_schema import COUNT, NAME, main, to_2, to_3
from support.databases import OpenDatabase
from support.reference import Doc

HERE = Path(__file__).parent


def assert_goes_on(db: Database) -> None:
    assert db.collections() == ["third"]
    changes = [(change.op, change.collection) for change in db.changes()]
    assert ("rename", "second") in changes
    assert ("drop", "dropped") in changes
    definition = db.definition("third")
    assert definition.version == 3
    assert [version for version, _ in definition.steps] == [2, 3]
    assert [name for _, name in definition.former] == ["first", "second"]
    third = db.collection("third")
    found: dict[str, Doc] = {}
    for number in range(COUNT):
        try:
            found[f"{number:02}"] = third.record(f"{number:02}").document
        except MigrationError:
            continue
    assert len(found) == 2, "so many had been migrated to the end"
    third = db.collection("third", version=3, migrate={2: to_2, 3: to_3})
    wanted = [{"id": f"{n:02}", "n": n + 100, "text": "tea green"} for n in range(COUNT)]
    assert third.find(order_by="id") == wanted
    db.build_indexes()
    assert third.find({"n": {"$gte": 100}}, order_by="n") == wanted
    assert len(third.search("green", limit=50)) == COUNT


def test_it_goes_on(tmp_path: Path, open_db: OpenDatabase) -> None:
    with tarfile.open(HERE / NAME) as archive:
        archive.extractall(tmp_path / "t.amber", filter="data")
    assert_goes_on(open_db())


def test_make_still_makes_the_same(tmp_path: Path, open_db: OpenDatabase) -> None:
    main(tmp_path)
    with tarfile.open(tmp_path / NAME) as archive:
        archive.extractall(tmp_path / "t.amber", filter="data")
    assert_goes_on(open_db())
