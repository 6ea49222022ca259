"""A database that is moved to a server and back."""

import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

import amberdb
from amberdb import Database
from amberdb.move import MoveReport, move
from support.databases import SMALL, assert_sound
from support.moving import fill_documents, fill_systems, killed_move, swap, thing, write_on
from support.servers import PostgreSQL


@pytest.fixture
def extensions() -> tuple[str, ...]:
    return ("vector",)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with amberdb.connect(tmp_path / "t.amber", **SMALL) as db:
        yield db
        assert_sound(db)


def is_equal(report: MoveReport) -> bool:
    return report.compared > 0 and report.differences == []


def test_all_systems_go_there_and_back(db: Database, url: str, tmp_path: Path) -> None:
    fill_systems(db, 12)
    fill_documents(db, 300)
    there = move(db, url, verify=True, finish=True)
    assert is_equal(there)
    back = move(url, str(tmp_path / "back.amber"), verify=True, finish=True)
    assert is_equal(back)
    assert back.digests == there.digests
    with amberdb.open(tmp_path / "back.amber", **SMALL) as copy, amberdb.connect(url) as server:
        assert_sound(copy)
        for text in ("会议", "turn 7", "meeting"):
            found = [
                [hit.id for hit in each["thing"].search(text, limit=300)]
                for each in (db, server, copy)
            ]
            assert found[0] == found[1] == found[2]
        with pytest.raises(amberdb.DuplicateKeyError):
            server["thing"].put({**thing(1), "id": "another"})


def test_changes_of_both_are_followed(db: Database, url: str, tmp_path: Path) -> None:
    fill_documents(db, 100)
    with amberdb.connect(url) as server, amberdb.open(tmp_path / "b.amber", **SMALL) as copy:
        assert is_equal(move(db, server, verify=True))
        assert is_equal(move(server, copy, verify=True))
        swap(db, 1, 2)
        db["thing"].delete("t000003")
        db.rename_collection("é 𝄞", "renamed")
        assert is_equal(move(db, server, verify=True, finish=True))
        swap(server, 4, 5)
        server["thing"].put({"id": "new", "who": "lin", "at": thing(1)["at"]})
        assert is_equal(move(server, copy, verify=True, finish=True))
        assert copy.collections() == ["renamed", "thing"]
        assert_sound(copy)


def test_a_program_writes_to_the_server_meanwhile(url: str, tmp_path: Path) -> None:
    ends, rng = Event(), random.Random(3)
    with amberdb.connect(url) as server, amberdb.open(tmp_path / "b.amber", **SMALL) as copy:
        fill_documents(server, 500)

        def write() -> None:
            while not ends.is_set():
                write_on(server, 550, rng)

        writer = Thread(target=write)
        writer.start()
        try:
            assert is_equal(move(server, copy, batch=50, verify=True))
        finally:
            ends.set()
            writer.join()
        assert is_equal(move(server, copy, verify=True, finish=True))
        assert_sound(copy)


def test_a_move_to_a_server_that_was_killed_goes_on(db: Database, url: str, tmp_path: Path) -> None:
    rng = random.Random(7)
    fill_documents(db, 400)
    for _ in range(4):
        killed_move(db.path, url, rng.randrange(1, 8))
        write_on(db, 440, rng)
    with amberdb.connect(url) as server:
        assert is_equal(move(db, server, verify=True, finish=True))
    for _ in range(3):
        killed_move(url, str(tmp_path / "b.amber"), rng.randrange(1, 8))
    assert is_equal(move(url, str(tmp_path / "b.amber"), verify=True))


def test_a_difference_on_the_server_is_named(
    db: Database, url: str, postgres18: PostgreSQL
) -> None:
    fill_documents(db, 100)
    move(db, url)
    with amberdb.connect(url) as server:
        server["thing"].delete("t000001")
        name = url.rpartition("/")[2]
        postgres18.execute(
            "UPDATE amberdb.d2 SET document = jsonb_set(document, '{text}', '\"flipped\"') "
            "WHERE convert_from(key, 'UTF8') = 't000002'",
            name,
        )
        report = move(db, server, verify=True, finish=True)
    assert [(each.id, each.kind) for each in report.differences] == [
        ("t000001", "missing"),
        ("t000002", "changed"),
    ]
    with amberdb.connect(url) as server:
        server.drop_collection("thing")  # whose indexes do not have what was changed behind them
