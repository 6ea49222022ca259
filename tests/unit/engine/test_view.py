"""Views: a reference to a read keeps neither the database nor LMDB's environment open."""

from collections.abc import Callable
from typing import Any

import pytest

from amberdb import Database, MissingKeyError, QueryError, Snapshot
from support.databases import OpenDatabase


def open_snapshot(db: Database) -> Snapshot:
    return db.snapshot()


def closed_snapshot(db: Database) -> Any:
    with db.snapshot() as at:
        note = at["note"]
        return at, note, note.find({"n": 9})


def half_read(db: Database) -> Any:
    documents = db.collection("note").documents()
    next(documents)
    return documents


def error_of_a_read(db: Database) -> Any:
    with pytest.raises(MissingKeyError) as caught:
        db.collection("note").record("nope")
    return caught


def error_of_a_question(db: Database) -> Any:
    with pytest.raises(QueryError) as caught:
        db.collection("note").find({"$nope": 1})
    return caught


@pytest.mark.parametrize(
    "keep", [open_snapshot, closed_snapshot, half_read, error_of_a_read, error_of_a_question]
)
def test_what_is_left_of_a_read_does_not_hinder_opening_again(
    open_db: OpenDatabase, keep: Callable[[Database], object]
) -> None:
    db = open_db()
    db.collection("note").put_many([{"id": "a"}, {"id": "b"}])
    kept = keep(db)
    db.close()
    assert len(open_db().collection("note")) == 2
    del kept
