"""Neighbors: the documents beside a hit count with it. Compared with the formula over documents of
one or two users in common groups, and one test for each thing that has no place in a group."""

import itertools
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import amberdb
from amberdb import (
    Collection,
    Database,
    Fusion,
    Hits,
    Neighbors,
    Ordered,
    QueryError,
    ReadableCollection,
    Text,
    Vector,
)
from amberdb._types import Document
from amberdb.engine.search.neighbors import GIVERS, GROUP_MAX, SKIPPED_MAX
from amberdb.engine.search.row_reader import RowReader
from support.databases import FakeClock

BESIDE = Neighbors(group="session", order="at")
WORDS = ["tea", "rain", "car", "cat", "late"]


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


def scores(hits: Hits) -> dict[str, float]:
    return {hit.id: hit.score for hit in hits}


@pytest.fixture
def turns(db: Database) -> Collection:
    return db.collection(
        "turns",
        indexes=[
            Ordered("session", "at"),
            Ordered("user"),
            Text("text"),
            Vector("v", dim=2, metric="l2"),
        ],
        expires_at="expires",
    )


def say(turns: Collection, session: Any, *texts: str, **fields: Any) -> None:
    """Turns t0, t1, ... of a session, named <session>0, <session>1, ..."""
    turns.put_many(
        {"id": f"{session}{at}", "session": session, "at": at, "text": text, **fields}
        for at, text in enumerate(texts)
    )


# -- the formula -----------------------------------------------------------------------------


def group_of(document: Document) -> Any:
    """The group in which a document has a place; None for none."""
    group: Any = document["session"]
    if isinstance(group, list):
        elements: set[Any] = {*group}  # pyright: ignore[reportUnknownArgumentType]
        group = elements.pop() if len(elements) == 1 else None
    return group if isinstance(group, (str, int)) and document["at"] is not None else None


def by_formula(own: dict[str, float], shown: Iterable[Document], by: Neighbors) -> dict[str, float]:
    """The scores with neighbors, of own scores and all documents that the search may see."""
    ranked = sorted(own.values(), reverse=True)
    zero = ranked[GIVERS - 1] if len(ranked) >= GIVERS else min(0.0, *ranked, 0.0)
    groups: dict[Any, list[str]] = {}
    placed = [document for document in shown if group_of(document) is not None]
    for document in sorted(placed, key=lambda each: (each["at"], each["made"])):
        groups.setdefault(group_of(document), []).append(document["id"])
    total = dict(own)
    for group in groups.values():
        for place, giver in enumerate(group):
            added = own.get(giver, zero) - zero
            for other in range(max(place - by.window, 0), min(place + by.window + 1, len(group))):
                if other != place and added > 0:
                    name = group[other]
                    factor = by.decay ** abs(other - place)
                    total[name] = max(total.get(name, zero), zero) + added * factor
    return total


@pytest.mark.parametrize("seed", range(12))
def test_scores_are_those_of_the_formula(
    db: Database, turns: Collection, clock: FakeClock, seed: int
) -> None:
    rng = random.Random(seed)
    count = rng.choice([4, 12, 40, 120])
    now = datetime.fromtimestamp(clock(), UTC)
    known: dict[str, Document] = {}
    made = itertools.count()

    def write(target: Any, numbers: Iterable[int]) -> None:
        for number in numbers:
            known[f"d{number}"] = document = {
                "id": f"d{number}",
                "session": rng.choice(["a", "b", 1, None, ["a"], ["a", "b"], {"a": 1}]),
                "at": rng.choice([1, 2, 3, 2.5, None]),
                "user": rng.choice("xy"),
                "text": " ".join(rng.choices(WORDS, k=rng.randrange(4))),
                "v": [rng.random(), rng.random()],
                "expires": rng.choice([None, None, now + timedelta(days=rng.choice([-1, 1]))]),
                "made": next(made),
            }
            target.put(document)

    def compare(target: ReadableCollection) -> None:
        live = [d for d in known.values() if d["expires"] is None or d["expires"] > now]
        by = Neighbors(
            group="session", order="at", window=rng.randrange(1, 4), decay=rng.choice([0.3, 1.0])
        )
        for where in ({}, {"user": "x"}, {"made": {"$gte": count // 2}}):
            shown = [d for d in live if d["user"] == where.get("user", d["user"])]
            if "made" in where:
                shown = [d for d in shown if d["made"] >= count // 2]
            queries: list[dict[str, Any]] = [{"text": "tea rain"}, {"vector": [0.5, 0.5]}]
            for asked in queries:
                own = scores(target.search(**asked, where=where, limit=1000))
                found = target.search(**asked, where=where, limit=1000, neighbors=by)
                assert scores(found) == pytest.approx(by_formula(own, shown, by)), (where, asked)
                assert list(found) == sorted(found, key=lambda hit: -hit.score)

    write(turns, range(count))
    compare(turns)
    db.checkpoint()
    write(turns, rng.sample(range(count), count // 3))
    for name in rng.sample(list(known), count // 4):
        turns.delete(name)
        del known[name]
    compare(turns)
    with db.transaction() as tx:
        write(tx["turns"], range(count, count + 5))
        compare(tx["turns"])
    with db.snapshot() as at:
        before = [list(map(repr, at["turns"].search("tea", neighbors=BESIDE)))]
        turns.delete_many({"user": "x"})
        assert [list(map(repr, at["turns"].search("tea", neighbors=BESIDE)))] == before


def test_the_score_of_both_lists_counts(turns: Collection) -> None:
    say(turns, "a", "tea and rain", "yes", "no", "cat", v=[0.0, 1.0])
    say(turns, "b", "tea", v=[1.0, 0.0])
    hits = turns.search("tea rain", vector=[0.0, 1.0], neighbors=BESIDE)
    assert ids(hits)[:3] == ["a0", "a1", "a2"], "all are as near, and a1 is beside the tea"
    by_rank = Fusion(method="reciprocal_rank")
    hits = turns.search("tea rain", vector=[0.0, 1.0], neighbors=BESIDE, fusion=by_rank)
    assert set(ids(hits)[:2]) == {"a0", "a1"}


# -- who has a place -------------------------------------------------------------------------


def test_a_neighbor_of_good_hits_is_let_in(turns: Collection) -> None:
    say(turns, "a", "tea?", "yes", "with rain", "tea")
    say(turns, "b", "late", "tea in the car and a cat that waits for so long that nobody came")
    hits = turns.search("tea", neighbors=BESIDE, limit=4)
    assert set(ids(hits)) == {"a0", "a1", "a2", "a3"}
    assert hits[2].ranks == {}, "no index ranked it"
    assert hits[2].document["text"] in ("yes", "with rain")
    assert hits.how["neighbors"] == {
        "index": "ordered:session,at",
        "window": 2,
        "decay": 0.5,
        "joined": 3,
    }
    assert turns.explain(text="tea", neighbors=BESIDE)["neighbors"] == hits.how["neighbors"]


def test_a_neighbor_may_have_nothing_that_is_indexed(turns: Collection) -> None:
    say(turns, "a", "tea")
    turns.put({"id": "image", "session": "a", "at": 1, "note": "no text and no vector"})
    assert ids(turns.search("tea", neighbors=BESIDE)) == ["a0", "image"]


@pytest.mark.parametrize("where", [{"user": "x"}, {"user": {"$ne": "y"}}])
def test_two_users_of_one_session_neither_give_nor_take(
    turns: Collection, where: dict[str, Any]
) -> None:
    for at in range(20):
        turns.put(
            {"id": f"x{at}", "session": "s", "at": at, "user": "x", "text": "tea" * (at == 9)}
        )
    alone = turns.search("tea", where=where, neighbors=BESIDE)
    assert sorted(ids(alone)) == ["x10", "x11", "x7", "x8", "x9"]
    for at in range(20):
        turns.put({"id": f"y{at}", "session": "s", "at": at, "user": "y", "text": "tea"})
    beside_others = turns.search("tea", where=where, neighbors=BESIDE)
    assert ids(beside_others) == ids(alone), "as if the other user had written nothing"


def test_equal_orders_are_in_the_order_of_writing(turns: Collection) -> None:
    for name in ("first", "second", "third", "fourth"):
        text = "tea" if name == "second" else "rain"
        turns.put({"id": name, "session": "s", "at": 7, "text": text})
    one = Neighbors(group="session", order="at", window=1)
    assert set(ids(turns.search("tea", neighbors=one))) == {"first", "second", "third"}


@pytest.mark.parametrize("lacking", ["session", "at"])
@pytest.mark.parametrize("value", [None, {"a": 1}, ["a", "b"]])
def test_documents_without_a_place_have_no_neighbors(
    turns: Collection, lacking: str, value: Any
) -> None:
    for name, text in (("hit", "tea"), ("other", "rain")):
        turns.put({"id": name, "session": "s", "at": 1, "text": text, lacking: value})
    turns.put({"id": "placed", "session": "a", "at": 1, "text": "rain"})
    assert ids(turns.search("tea", neighbors=BESIDE)) == ["hit"]
    turns.update("placed", {"text": "tea"})
    assert set(ids(turns.search("tea", neighbors=BESIDE))) == {"hit", "placed"}


def test_what_has_expired_has_no_place(turns: Collection, clock: FakeClock) -> None:
    soon = datetime.fromtimestamp(clock(), UTC) + timedelta(days=1)
    say(turns, "a", "tea", "rain", "car")
    turns.update("a1", {"expires": soon})
    one = Neighbors(group="session", order="at", window=1)
    assert ids(turns.search("tea", neighbors=one)) == ["a0", "a1"]
    clock.advance(2 * 86_400)
    assert ids(turns.search("tea", neighbors=one)) == ["a0", "a2"]


def test_groups_of_any_size_and_keys_of_any_length(db: Database) -> None:
    """Small groups are read whole, large ones and those with cut keys around each hit."""
    turns = db.collection("turns", indexes=[Ordered("-session", "-at"), Text("text")])
    long = "s" * 600
    for session, count, order in (
        ("small", 9, ""),
        ("large", GROUP_MAX + 9, ""),
        (long, 9, ""),
        ("by long keys", 9, long),
    ):
        turns.put_many(
            {
                "session": session,
                "at": f"{order}{at:03}",
                "text": "tea" if at == 4 else "rain",
                "name": session,
            }
            for at in range(count)
        )
        for fresh in (False, True):
            hits = turns.search("tea", where={"name": session}, neighbors=BESIDE)
            found = [int(hit.document["at"][-3:]) for hit in hits]
            assert found[0] == 4, (session, fresh)
            assert sorted(found) == [2, 3, 4, 5, 6], (session, fresh)
            db.checkpoint()


@pytest.mark.parametrize("fields", [("session", "at"), ("-session", "-at")])
@pytest.mark.parametrize("long", ["", "s" * 600])
def test_neighbors_are_of_the_group_alone(db: Database, fields: tuple[str, str], long: str) -> None:
    """In the store as in a memtable, for the first and the last entry of the index too."""
    turns = db.collection("turns", indexes=[Ordered(*fields), Text("text")])
    sizes = {"a": 5, "b": 1, "c": 4}
    for session, size in sizes.items():
        turns.put_many(
            {"id": f"{session}{at}", "session": long + session, "at": at, "text": f"{session}{at}"}
            for at in range(size)
        )
    for _ in ("in a memtable", "in the store"):
        for session, size in sizes.items():
            for at in range(size):
                beside = range(max(at - 2, 0), min(at + 3, size))
                found = ids(turns.search(f"{session}{at}", neighbors=BESIDE))
                assert found[0] == f"{session}{at}"
                assert sorted(found) == [f"{session}{each}" for each in beside]
        db.checkpoint()
    turns.put({"id": "b1", "session": f"{long}b", "at": 1, "text": "new"})
    assert ids(turns.search("b0", neighbors=BESIDE)) == ["b0", "b1"]


def test_a_group_of_several_fields(db: Database) -> None:
    turns = db.collection("turns", indexes=[Ordered("user", "session", "at"), Text("text")])
    for user in "xy":
        turns.put_many(
            {"id": f"{user}{at}", "user": user, "session": 1, "at": at, "text": "tea" * (at == 1)}
            for at in range(3)
        )
    turns.update("y1", {"text": "rain"})
    by = Neighbors(group=("user", "session"), order="at")
    assert ids(turns.search("tea", neighbors=by)) == ["x1", "x2", "x0"]


# -- limits ----------------------------------------------------------------------------------


def test_documents_are_read_around_the_best_hits_only(
    turns: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for session in range(80):
        say(turns, session, *["tea " * (session + 1), "rain", "rain"])
    read: list[int] = []
    reads = RowReader.read

    def spy(self: RowReader, rowid: int, index: Any) -> Document:
        read.append(rowid)
        return reads(self, rowid, index)

    monkeypatch.setattr(RowReader, "read", spy)
    turns.search("tea", neighbors=BESIDE, limit=5)
    assert len(read) <= GIVERS + 5


def test_a_long_run_of_documents_that_do_not_pass_ends_the_neighborhood(db: Database) -> None:
    turns = db.collection("turns", indexes=[Ordered("session", "at"), Text("text")])
    say(turns, "s", *["tea", *["rain"] * (SKIPPED_MAX + 1), "car"])
    turns.update("s0", {"mine": True})
    turns.update(f"s{SKIPPED_MAX + 2}", {"mine": True})
    assert ids(turns.search("tea", where={"mine": True}, neighbors=BESIDE)) == ["s0"]
    turns.delete("s1")
    found = turns.search("tea", where={"mine": True}, neighbors=BESIDE)
    assert ids(found) == ["s0", f"s{SKIPPED_MAX + 2}"]


# -- what is refused -------------------------------------------------------------------------


def test_without_an_index_over_group_and_order_it_is_refused(turns: Collection) -> None:
    by = Neighbors(group="user", order="at")
    with pytest.raises(QueryError, match=r"declare Ordered\('user', 'at'\)"):
        turns.search("tea", neighbors=by)


def test_an_index_that_is_being_built_is_finished_first(db: Database, turns: Collection) -> None:
    say(turns, "a", "tea", "rain", user="x")
    with db.snapshot() as before:
        db.collection(
            "turns",
            indexes=[Ordered("session", "at"), Ordered("user", "at"), Text("text")],
            expires_at="expires",
        )
        by = Neighbors(group="user", order="at")
        with pytest.raises(QueryError, match="declare"):
            before["turns"].search("tea", neighbors=by)
    with db.snapshot() as at, pytest.raises(QueryError, match="still being built"):
        at["turns"].search("tea", neighbors=by)
    assert ids(turns.search("tea", neighbors=by)) == ["a0", "a1"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"window": 0}, "window"),
        ({"window": True}, "window"),
        ({"window": 11}, "window"),
        ({"decay": 1.5}, "decay"),
        ({"decay": float("nan")}, "decay"),
        ({"group": ""}, "name fields"),
        ({"order": "a..b"}, "name fields"),
    ],
)
def test_arguments_out_of_range_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(QueryError, match=problem):
        Neighbors(**(dict[str, Any](group="session", order="at") | given))


def test_a_reader_sees_neighbors_too(db: Database, turns: Collection) -> None:
    say(turns, "a", "tea", "rain")
    with amberdb.open(db.path, read_only=True) as reader:
        assert ids(reader["turns"].search("tea", neighbors=BESIDE)) == ["a0", "a1"]
