"""Unique indexes: checked by the end state of a commit, over live documents, by full values."""

from pathlib import Path

import pytest

from amberdb import Collection, Database, DuplicateKeyError, Unique
from amberdb.engine.storage.memtable import Memtable
from support.databases import FakeClock, OpenDatabase
from support.inside import engine_of
from unit.engine.helpers import abandon

LONG = "long " * 200


@pytest.fixture(params=["memtable", "frozen", "replayed", "store"])
def filled(request: pytest.FixtureRequest, open_db: OpenDatabase, tmp_path: Path) -> Database:
    """A database with three users of a name each: in the memtable, in a frozen one, in one that
    was replayed after a crash, or in LMDB."""
    db = open_db("first.amber")
    users = db.collection("user", indexes=[Unique("name", name="by_name")])
    users.put_many({"id": id, "name": id.upper()} for id in "abc")
    if request.param == "frozen":
        engine_of(db).committer.freeze()
    elif request.param == "replayed":
        abandon(db, tmp_path / "second.amber")
        db = open_db("second.amber")
        assert db.recovery is not None
    elif request.param == "store":
        db.checkpoint()
    return db


@pytest.fixture
def users(filled: Database) -> Collection:
    return filled.collection("user")


def test_duplicate_is_refused_and_named(users: Collection) -> None:
    with pytest.raises(DuplicateKeyError, match="by_name keeps unique") as caught:
        users.put({"id": "z", "name": "A"})
    assert (caught.value.collection, caught.value.index) == ("user", "by_name")
    assert caught.value.key in {"a", "z"}
    assert "z" not in users


def test_update_to_a_duplicate_is_refused(users: Collection) -> None:
    with pytest.raises(DuplicateKeyError):
        users.update("b", {"name": "A"})
    assert users.find({"name": "B"})


def test_own_value_is_no_duplicate(users: Collection) -> None:
    users.put({"id": "a", "name": "A", "x": 1})
    users.update("a", {"x": 2})
    assert users.find({"name": "A"}) == [{"id": "a", "name": "A", "x": 2}]


def test_value_is_free_after_delete(users: Collection) -> None:
    users.delete("a")
    users.insert({"id": "z", "name": "A"})


def test_value_is_free_after_it_was_changed(users: Collection) -> None:
    users.update("a", {"name": "other"})
    users.insert({"id": "z", "name": "A"})


def test_duplicates_within_one_call_are_refused(users: Collection) -> None:
    with pytest.raises(DuplicateKeyError):
        users.put_many([{"id": "y", "name": "Y"}, {"id": "z", "name": "Y"}])
    assert len(users) == 3


def test_swap_in_one_call_is_judged_by_its_end(users: Collection) -> None:
    users.put_many([{"id": "a", "name": "B"}, {"id": "b", "name": "A"}])
    assert users.find({"name": "A"}) == [{"id": "b", "name": "A"}]


def test_swap_in_a_transaction_is_judged_by_its_end(filled: Database, users: Collection) -> None:
    with filled.transaction() as tx:
        tx["user"].update("a", {"name": "B"})
        tx["user"].update("b", {"name": "C"})
        tx["user"].update("c", {"name": "A"})
    assert [users.find({"name": name})[0]["id"] for name in "ABC"] == ["c", "a", "b"]


def test_duplicate_that_is_gone_by_the_end_is_none(filled: Database, users: Collection) -> None:
    with filled.transaction() as tx:
        tx["user"].put({"id": "z", "name": "A"})
        tx["user"].delete("a")
    assert users.find({"name": "A"}) == [{"id": "z", "name": "A"}]


def test_duplicate_that_is_there_at_the_end_undoes_all(filled: Database, users: Collection) -> None:
    tx = filled.transaction()

    def body() -> None:
        tx["user"].delete("c")
        tx["user"].update("a", {"name": "B"})

    with pytest.raises(DuplicateKeyError), tx:
        body()
    assert list(users) == ["a", "b", "c"]


def test_value_that_comes_back_is_judged_again(filled: Database, users: Collection) -> None:
    users.update("a", {"name": "other"})
    users.put({"id": "z", "name": "A"})
    with pytest.raises(DuplicateKeyError):
        users.update("a", {"name": "A"})
    users.delete("z")
    users.update("a", {"name": "A"})
    with pytest.raises(DuplicateKeyError):
        users.put({"id": "z", "name": "A"})


def test_unchanged_value_is_judged_when_another_document_takes_it(
    filled: Database, users: Collection
) -> None:
    def body() -> None:
        tx["user"].put({"id": "z", "name": "A"})
        tx["user"].update("a", {"x": 1})

    tx = filled.transaction()
    with pytest.raises(DuplicateKeyError), tx:
        body()


def test_memtable_knows_the_values_that_a_replay_finds(filled: Database, users: Collection) -> None:
    """The values that commits noted equal those that a scan of their entries finds."""
    filled.collection("user", indexes=[Unique("name", name="by_name"), Unique("tags", sparse=True)])
    users.put_many({"id": str(n), "name": n, "tags": [n, -n]} for n in range(1, 9))
    users.update("1", {"tags": [1, 100]})
    users.delete("2")
    users.put({"id": "2b", "name": 2, "tags": [2]})
    state = engine_of(filled).committer.state
    replayed = Memtable()
    replayed.entries = state.active.entries
    replayed.find_unique(state.catalog.unique_prefixes)
    assert len(replayed.unique_rowids) > 16
    for value, rowids in replayed.unique_rowids.items():
        assert state.active.unique_rowids[value] == rowids
    users.put_many({"id": str(n), "name": n + 1, "tags": [n]} for n in range(20, 30))
    with pytest.raises(DuplicateKeyError):
        users.put({"id": "z", "name": 2})


def test_value_of_an_expired_document_is_free(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    users = db.collection("user", indexes=[Unique("name")], expires_at="until")
    users.put({"id": "a", "name": "A", "until": clock.now + 10})
    with pytest.raises(DuplicateKeyError):
        users.put({"id": "z", "name": "A"})
    clock.advance(11)
    users.put({"id": "z", "name": "A"})
    assert list(users) == ["z"]
    assert db.stats()["collections"]["user"]["documents"] == 1, "the expired one went with it"


@pytest.mark.parametrize("equal", [(1, 1.0), (0.0, -0.0), (None, None), ("é", "é")], ids=repr)
def test_equal_values_are_duplicates(db: Database, equal: tuple[object, object]) -> None:
    notes = db.collection("n", indexes=[Unique("x")])
    notes.put({"x": equal[0]})
    with pytest.raises(DuplicateKeyError):
        notes.put({"x": equal[1]})


def test_values_of_different_classes_are_no_duplicates(db: Database) -> None:
    notes = db.collection("n", indexes=[Unique("x")])
    notes.put_many({"x": x} for x in (1, True, "1", b"1", None, 1 << 53, (1 << 53) + 1))


def test_missing_counts_as_none_unless_sparse(db: Database) -> None:
    strict = db.collection("strict", indexes=[Unique("x")])
    strict.put({"x": None})
    with pytest.raises(DuplicateKeyError):
        strict.put({})
    sparse = db.collection("sparse", indexes=[Unique("x", sparse=True)])
    sparse.put_many([{"x": None}, {}, {"x": None}, {"x": [None]}, {"x": []}, {"x": [None, 1]}])
    with pytest.raises(DuplicateKeyError):
        sparse.put({"x": 1})


def test_fields_are_unique_together(db: Database) -> None:
    notes = db.collection("n", indexes=[Unique("x", "y")])
    notes.put_many([{"x": 1, "y": 1}, {"x": 1, "y": 2}, {"x": 2, "y": 1}, {"x": 1}])
    for duplicate in ({"x": 1, "y": 2}, {"x": 1, "y": None}):
        with pytest.raises(DuplicateKeyError):
            notes.put(duplicate)


def test_each_element_of_a_list_is_unique(db: Database) -> None:
    notes = db.collection("n", indexes=[Unique("tags")])
    notes.put({"id": "a", "tags": ["x", "y", "x"]})
    for duplicate in (["z", "y"], "x", ["x"]):
        with pytest.raises(DuplicateKeyError):
            notes.put({"id": "b", "tags": duplicate})
    notes.put({"id": "a", "tags": ["y"]})
    notes.put({"id": "b", "tags": ["x", "z"]})


def test_long_values_are_compared_whole(db: Database) -> None:
    notes = db.collection("n", indexes=[Unique("x")])
    notes.put_many({"x": LONG + tail} for tail in ("", "a", "b", "ab", "a" * 600))
    for tail in ("", "a", "ab", "a" * 600):
        with pytest.raises(DuplicateKeyError):
            notes.put({"x": LONG + tail})
    db.checkpoint()
    with pytest.raises(DuplicateKeyError):
        notes.put({"x": LONG + "b"})
    notes.put({"x": LONG + "c"})


def test_long_elements_of_one_list_are_each_unique(db: Database) -> None:
    notes = db.collection("n", indexes=[Unique("x")])
    notes.put({"id": "a", "x": [LONG + "a", LONG + "b"]})
    for tail in "ab":
        with pytest.raises(DuplicateKeyError):
            notes.put({"id": "b", "x": [LONG + "c", LONG + tail]})
    notes.put({"id": "a", "x": [LONG + "a"]})
    notes.put({"id": "b", "x": [LONG + "c", LONG + "b"]})


# -- declared over documents -----------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
def test_unique_is_built_before_the_call_returns(open_db: OpenDatabase, background: bool) -> None:
    db = open_db(background=background)
    notes = db.collection("n")
    notes.put_many({"id": str(n), "x": n} for n in range(2500))
    db.collection("n", indexes=[Unique("x")])
    assert notes.explain({"x": 5})["index"] == "unique:x"
    with pytest.raises(DuplicateKeyError):
        notes.put({"x": 5})


@pytest.mark.parametrize("background", [False, True])
def test_unique_over_duplicates_is_refused_and_gone_again(
    open_db: OpenDatabase, background: bool
) -> None:
    db = open_db(background=background)
    notes = db.collection("n")
    notes.put_many({"id": f"{n:04d}", "x": n % 1999, "y": n} for n in range(2000))
    for _ in range(2):
        with pytest.raises(DuplicateKeyError, match="cannot be built") as caught:
            db.collection("n", indexes=[Unique("y"), Unique("x")])
        assert {caught.value.key} <= {"0000", "1999"}
        assert caught.value.index == "unique:x"
    assert "unique:x" not in db.stats()["collections"]["n"]["indexes"]
    notes.put({"id": "z", "x": 5, "y": -1})
    assert notes.count({"x": 5}) == 2
    notes.delete_many({"x": {"$in": [0, 5]}})
    db.collection("n", indexes=[Unique("x")])
    db.build_indexes()
    with pytest.raises(DuplicateKeyError):
        notes.put({"x": 7})


def test_expired_documents_and_nones_are_no_duplicates_when_it_is_built(
    open_db: OpenDatabase,
) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    notes = db.collection("n", expires_at="until")
    notes.put_many({"x": 1, "until": clock.now + n} for n in (1, 2, 100))
    notes.put_many([{}, {"x": None}, {"x": []}, {"x": [None, 2]}, {"x": [None, 3]}])
    clock.advance(50)
    db.collection("n", indexes=[Unique("x", sparse=True)])
    assert notes.count({"x": 1}) == 1


def test_long_duplicates_are_found_when_it_is_built(db: Database) -> None:
    notes = db.collection("n")
    notes.put_many({"id": tail, "x": LONG + tail} for tail in ("a", "b", "c"))
    db.collection("n", indexes=[Unique("x")])
    other = db.collection("m")
    other.put_many(
        {"id": id, "x": LONG + tail} for id, tail in [("1", "a"), ("2", "b"), ("3", "a")]
    )
    with pytest.raises(DuplicateKeyError):
        db.collection("m", indexes=[Unique("x")])
