"""Search on a server finds what a search of a directory with the same documents finds: the same
hits, in the same order, with the same scores to the last bit.
"""

import inspect
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import amberdb
from amberdb import (
    REMOVE,
    Collection,
    Database,
    Fusion,
    Hits,
    Neighbors,
    Ordered,
    QueryError,
    ReadableCollection,
    Recency,
    Text,
)
from amberdb.index.registry import IndexSpec
from amberdb.postgres.view import PostgresView
from support import slices
from support.audited_server import audited_url
from support.both_engines import Both, databases_of
from support.databases import FakeClock
from support.servers import PostgreSQL

WORDS = [
    *("umbrella", "meetings", "meeting", "met", "car", "gen-itgc", "getUserName", "C++", "v2.10"),
    *(
        "the",
        "of",
        "下午",
        "会议",
        "下午的会议",
        "猫",
        "café",
        "cafe",
        "\U0001f44d\U0001f3fd",
        "\\'",
    ),
    *("x" * 150, "x" * 151, "o'brien"),
]
SPECS: list[IndexSpec] = [
    Text("content"),
    Text("content", "title", weights={"title": 2.5}, name="both"),
    Text("tags", language=None, stop_words=False),
    Text("m.deep", "title", language="french", weights={"m.deep": 0.3}),
    Ordered("who"),
    Ordered("tags"),
    Ordered("who", "n"),
]

words = st.sampled_from([*WORDS[:5], *WORDS[:5], *WORDS])
texts = st.lists(words, min_size=1, max_size=8).map(" ".join)
fields: dict[str, st.SearchStrategy[Any]] = {
    "content": texts,
    "title": texts | st.none() | st.integers(0, 3),
    "tags": st.lists(st.sampled_from(WORDS), max_size=3),
    "m": st.fixed_dictionaries({"deep": st.lists(texts, max_size=2)}),
    "who": st.sampled_from(["lin", "wang", "chen"]),
    "n": st.integers(0, 4),
    "done": st.booleans(),
}
ids = st.sampled_from([f"d{number}" for number in range(9)])
USUAL = ("content", "who", "n")
bodies = st.fixed_dictionaries(
    {name: fields[name] for name in USUAL},
    optional={name: each for name, each in fields.items() if name not in USUAL},
)
patches = st.fixed_dictionaries(
    {}, optional={name: each | st.just(REMOVE) for name, each in fields.items()}
)
lives = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "many", "update", "delete", "transaction", "touch", "time"]),
        ids,
        bodies,
        patches,
        st.none() | st.integers(-1, 4),
    ),
    min_size=4,
    max_size=14,
)
firsts = st.lists(st.tuples(bodies, st.none() | st.integers(1, 9)), min_size=6, max_size=9)
"""The documents at first, with the hours after which they expire."""
declarations = st.lists(st.sampled_from(SPECS), min_size=1, max_size=6, unique_by=lambda s: s.name)
clauses = st.tuples(
    st.sampled_from(["", "", "", "+", "-"]),
    st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(["me*", "um*", "c*", "xx*", "get*"]),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(lambda w: f'"{" ".join(w)}"'),
    ),
).map("".join)
questions: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"limit": st.sampled_from([1, 2, 3, 10])},
    optional={
        "where": st.sampled_from(
            [
                {"who": "lin"},
                {"done": True},
                {"n": {"$gte": 2}},
                {"who": {"$in": ["lin", "chen"]}, "n": {"$lt": 3}},
                {"tags": "car"},
                {"title": {"$exists": True}},
                {"who": "nobody"},
            ]
        ),
        "fusion": st.sampled_from(
            [Fusion(depth=2), Fusion(method="reciprocal_rank", depth=3, weights={"both": 2.0})]
        ),
        "recency": st.just(Recency(field="until", half_life=timedelta(hours=1))),
        "neighbors": st.just(Neighbors(group="who", order="n")),
        "group_by": st.sampled_from(["who", "n", "tags"]),
        "snippets": st.booleans(),
        "fields": st.just(["content", "n"]),
    },
)
asked = st.lists(
    st.tuples(
        questions,
        st.one_of(
            texts.map(lambda text: {"text": text}),
            st.lists(clauses, min_size=1, max_size=4).map(lambda each: {"query": " ".join(each)}),
        ),
    ).map(lambda both: {**both[0], **both[1]}),
    min_size=4,
    max_size=8,
)


@pytest.fixture(scope="module")
def module_url(postgres18: PostgreSQL) -> Iterator[str]:
    with audited_url(postgres18) as url:
        yield url


@pytest.fixture(scope="module")
def databases(module_url: str) -> Iterator[tuple[Database, Database, FakeClock]]:
    with databases_of(module_url) as databases:
        yield databases


def time_in(clock: FakeClock, hours: int) -> datetime:
    return datetime.fromtimestamp(clock.now + 3600 * hours, UTC)


def plain(hits: Hits) -> list[Any]:
    return [(hit.id, hit.score, hit.snippet, hit.ranks, hit.document) for hit in hits]


def pages(question: dict[str, Any], collection: ReadableCollection) -> list[Any]:
    """The hits of three pages."""
    found: list[Any] = []
    after: str | None = None
    for _ in range(3):
        hits = collection.search(**question, after=after)
        found += plain(hits)
        after = hits.cursor
        if after is None:
            break
    return found


def step(
    both: Both, clock: FakeClock, kind: str, id: str, body: Any, patch: Any, hours: Any
) -> None:
    until = None if hours is None else time_in(clock, hours)
    document = {"id": id, **body, "until": until}
    match kind:
        case "put":
            both.same_outcome(lambda each: each.put(document))
        case "many":
            others = [{**document, "id": other} for other in ("d0", id, "d1", id)]
            both.same_outcome(lambda each: each.put_many(others))
        case "update":
            both.same_outcome(lambda each: bool(each.update(id, patch)))
        case "delete":
            both.same_outcome(lambda each: each.delete(id))
        case "transaction":
            for db in both.databases:
                with db.transaction() as tx:
                    collection = tx[both.name]
                    collection.put({**document, "content": "umbrella first"})
                    if id in collection:  # else it has expired
                        collection.update(id, {"content": "umbrella second"})
                    collection.delete("d2")
            both.same_outcome(lambda each: each.get(id))
        case "touch":
            both.same_outcome(lambda each: each.touch([id, "d1"], until))
        case _:
            clock.advance(3600)
            both.same_outcome(lambda each: each.expire() if body["n"] else 0)


@pytest.mark.sliced
@settings(max_examples=slices.examples(2, 0.3))
@given(
    firsts=firsts,
    life=lives,
    asked=asked,
    first=declarations,
    second=declarations,
    turn=st.integers(0, 12),
    expires=st.booleans(),
)
def test_both_engines_find_the_same(
    databases: tuple[Database, Database, FakeClock],
    firsts: list[tuple[Any, int | None]],
    life: list[tuple[str, str, Any, Any, Any]],
    asked: list[dict[str, Any]],
    first: list[IndexSpec],
    second: list[IndexSpec],
    turn: int,
    expires: bool,
) -> None:
    directory, server, clock = databases
    both = Both(directory, server)
    both.declare(first, expires)
    documents: list[dict[str, Any]] = [
        {"id": f"d{at}", **body, "until": hours and time_in(clock, hours)}
        for at, (body, hours) in enumerate(firsts)
    ]
    both.same_outcome(lambda each: each.put_many(documents))
    for at, (kind, id, body, patch, hours) in enumerate(life):
        if at == turn:
            both.declare(second, expires)
        step(both, clock, kind, id, body, patch, hours)
    clock.advance(3600)
    for question in asked:
        note(repr(question))
        both.same_outcome(partial(pages, question))
    whole: dict[str, Any] = {**asked[0], "limit": 20}
    found: list[Any] = []
    for db in both.databases:
        with db.transaction() as tx:
            tx[both.name].put({"id": "pending", "content": "umbrella 会议", "who": "lin", "n": 1})
            tx[both.name].delete("d0")
            try:
                found.append(plain(tx[both.name].search(**whole)))
            except QueryError as error:
                found.append(str(error))
    assert found[0] == found[1]
    for db in both.databases:
        db.drop_collection(both.name)


# -- one thing each --------------------------------------------------------------------------


def found(collection: ReadableCollection, text: str, **options: Any) -> list[str]:
    return [hit.id for hit in collection.search(text, **options)]


def sums(url: str) -> list[tuple[int, int, int]]:
    """The sums of each Text index with the number of their parts, each compared with a recount."""
    of_index: list[tuple[int, int, int]] = []
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT substr(tablename, 2) FROM pg_tables "
            "WHERE schemaname = 'amberdb' AND tablename LIKE 't%' ORDER BY 1"
        ).fetchall()
        for (number,) in names:
            statement = (
                "SELECT coalesce(sum(documents), 0)::int, coalesce(sum(units), 0)::int, count(*) "
                f"FROM amberdb.s{number}"
            )
            recount = f"SELECT count(*), coalesce(sum(units), 0)::int FROM amberdb.t{number}"
            documents, units, parts = connection.execute(statement.encode()).fetchall()[0]
            assert [(documents, units)] == connection.execute(recount.encode()).fetchall()
            of_index.append((documents, units, parts))
    return of_index


def test_sources_of_this_package_are_ranked_alike(db: Database) -> None:
    """Longer texts than those of the property, and more of them."""
    modules = [random, inspect, psycopg, pytest, amberdb]
    texts = [
        text
        for module in modules
        for _, each in inspect.getmembers(module, callable)
        if (text := inspect.getdoc(each))
    ]
    with amberdb.open(":memory:", background=False) as directory:
        both = [each.collection("doc", indexes=[Text("text")]) for each in (directory, db)]
        for notes in both:
            notes.put_many({"id": f"{at}", "text": text} for at, text in enumerate(texts))
        for text in texts[::7]:
            here, there = (plain(notes.search(text[:80])) for notes in both)
            assert here == there


def test_index_is_built_over_documents_that_are_there(db: Database) -> None:
    notes = db.collection("note")
    notes.put_many({"id": f"{n:04}", "t": f"word{n % 50} tea", "u": "雨伞"} for n in range(2100))
    notes.put({"id": "none"})
    with pytest.raises(QueryError, match="no Text index"):
        notes.search("tea")
    db.collection("note", indexes=[Text("t"), Text("u")])
    hits = notes.search("word7", limit=50)
    assert [hit.id for hit in hits] == [f"{n:04}" for n in range(2057, 0, -50)]
    assert found(notes, "雨伞", limit=3) == ["2099", "2098", "2097"]
    db.collection("note", indexes=[Text("u")])
    assert found(notes, "tea") == []
    assert found(notes, "雨伞", limit=1) == ["2099"]


def test_older_declaration_writes_no_row_without_its_terms(db: Database, other: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "before", "t": "tea"})
    others = other["note"]
    others.put({"id": "first", "t": "tea"})
    db.collection("note", indexes=[Text("t")])
    others.put({"id": "put", "t": "tea"})
    others.put_many([{"id": "many", "t": "tea"}])
    others.update("before", {"t": "milk"})
    with other.transaction() as tx:
        tx["note"].put({"id": "tx", "t": "tea"})
    assert found(notes, "tea") == ["tx", "many", "put", "first"]
    assert found(notes, "milk") == ["before"]


def test_sums_are_exact_whatever_is_written(url: str, clock: FakeClock) -> None:
    rng = random.Random(3)

    def note(id: int, n: int) -> dict[str, Any]:
        t, u = (" ".join(rng.choices(WORDS, k=rng.randrange(6))) for _ in range(2))
        return {"id": f"{id}", "t": t, "u": u, "n": n, "until": clock.now + 100 if n % 3 else None}

    with amberdb.connect(url, clock=clock) as db:
        notes = db.collection("note", indexes=[Text("t"), Text("u")], expires_at="until")
        for n in range(150):
            notes.put(note(rng.randrange(40), n))
            notes.touch([f"{n % 40}"], clock.now + 50)
        assert all(parts <= 64 for _, _, parts in sums(url))  # folded
        notes.put_many(note(id, 500) for id in range(20, 60))
        notes.update("30", {"t": 7})
        notes.update("31", {"n": 501})
        notes.delete("32")
        assert notes.delete_many({"n": {"$lt": 100}}) > 0
        with db.transaction() as tx:
            for word in ("tea", "milk"):
                tx["note"].put({"id": "33", "t": word})
                tx["note"].find({"id": "33"})  # sends what is written
            tx["note"].delete("34")

        def fail() -> None:
            with db.transaction() as tx:
                tx["note"].put({"id": "35", "t": "tea " * 100})
                tx["note"].find({"id": "35"})
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        before = sums(url)
        clock.advance(101)
        assert notes.search("umbrella").how["indexes"]["text:t"]["rows"] < before[0][0]
        assert db.expire() > 0
        after = sums(url)
        assert notes.search("umbrella").how["indexes"]["text:t"]["rows"] == after[0][0]


def test_two_fold_the_parts_at_once(url: str) -> None:
    """One has them in hand and has not committed; the other one passes them over."""
    with amberdb.connect(url) as db, amberdb.connect(url) as other:
        notes = db.collection("note", indexes=[Text("t")])
        for number in range(62):
            notes.put({"id": f"{number}", "t": "tea"})
        with db.transaction() as tx:
            for number in range(62, 70):
                tx["note"].put({"id": f"{number}", "t": "tea"})
                tx["note"].find({"id": "0"}, limit=1)  # sends what is written
            for number in range(70, 80):
                other["note"].put({"id": f"{number}", "t": "tea"})
            assert notes.search("tea").how["indexes"]["text:t"]["rows"] == 72
        assert notes.search("tea").how["indexes"]["text:t"]["rows"] == 80
    ((documents, _, parts),) = sums(url)
    assert documents == 80
    assert parts < 40


def test_transaction_searches_what_it_has_written_and_locks_what_it_finds(
    db: Database, other: Database
) -> None:
    notes = db.collection("note", indexes=[Text("t"), Ordered("n")])
    notes.put_many({"id": f"{n}", "t": "tea", "n": n} for n in range(5))
    with db.transaction() as tx:
        tx["note"].update("3", {"t": "milk"})
        other["note"].update("4", {"t": "coffee"})
        assert found(tx["note"], "tea", limit=2) == ["2", "1"]
        assert found(tx["note"], "tea", where={"n": {"$gte": 1}}) == ["2", "1"]
        assert found(notes, "tea") == ["3", "2", "1", "0"]
    assert found(notes, "tea") == ["2", "1", "0"]


def test_document_that_is_written_while_a_transaction_searches_is_no_hit(
    db: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the statement that finds rows and the one that reads, and locks, their documents."""
    notes = db.collection("note", indexes=[Text("t")])
    notes.put_many({"id": f"{n}", "t": "tea"} for n in range(5))
    text_rows = PostgresView.text_rows

    def overtaken(self: PostgresView, *args: Any) -> list[Any]:
        rows = text_rows(self, *args)
        if self.locks:
            other["note"].update("4", {"t": "tea and milk"})
            other["note"].delete("3")
        return rows

    monkeypatch.setattr(PostgresView, "text_rows", overtaken)
    with db.transaction() as tx:
        assert found(tx["note"], "tea", limit=2) == ["2", "1"]


def test_snapshot_searches_its_own_state(db: Database) -> None:
    notes = db.collection("note", indexes=[Text("t")])
    notes.put_many({"id": f"{n}", "t": "tea"} for n in range(3))
    with db.snapshot() as at:
        before = plain(at["note"].search("tea"))
        notes.delete("0")
        notes.put({"id": "9", "t": "tea tea tea"})
        assert plain(at["note"].search("tea")) == before
    assert found(notes, "tea") == ["9", "2", "1"]


def test_search_says_how_it_was_answered(db: Database) -> None:
    notes = db.collection("note", indexes=[Text("t"), Ordered("n")])
    notes.put_many({"t": "tea" if n % 4 else "milk", "n": n} for n in range(12))
    hits = notes.search("milk", where={"n": {"$lt": 6}})
    assert hits.how == notes.explain({"n": {"$lt": 6}}, text="milk")
    assert hits.how["where"] == {"filter": "{n: {$lt: ?}}", "index": "ordered:n", "rows": 6}
    assert hits.how["indexes"] == {
        "text:t": {"kind": "text", "rows": 12, "candidates": 3, "documents checked": False}
    }
    assert notes.search(query='"milk"').how["indexes"]["text:t"]["documents checked"] is False
    assert notes.search(query='"tea tea"').how["indexes"]["text:t"]["documents checked"] is True


def test_too_many_words_for_a_prefix(db: Database) -> None:
    notes = db.collection("note", indexes=[Text("t", language=None)])
    notes.put_many({"t": " ".join(f"p{n}x{m}" for m in range(100))} for n in range(101))
    assert len(notes.search(query="p7x1*").how["indexes"]) == 1
    with pytest.raises(QueryError, match="more than 10,000 words begin"):
        notes.search(query="p*")


def test_long_text_of_many_words_is_found_whole(db: Database) -> None:
    """More distinct terms, and more bytes of them, than the text type of the server takes."""
    notes: Collection = db.collection("note", indexes=[Text("t", language=None)])
    notes.put(
        {"id": "long", "t": " ".join(f"{'w' * 60}{n}" for n in range(30_000)) + " tea" * 70_000}
    )
    notes.put({"id": "short", "t": "tea"})
    assert found(notes, "w" * 60 + "29999") == ["long"]
    assert sorted(found(notes, "tea")) == ["long", "short"]


def test_index_of_another_version_of_the_analyzer_is_built_anew(
    db: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = db.collection("note", indexes=[Text("t")])
    notes.put({"id": "a", "t": "tea"})
    with psycopg.connect(url) as connection:
        before = connection.execute(
            "SELECT tablename FROM pg_tables WHERE tablename ~ '^[tws][0-9]+$'"
        ).fetchall()
    monkeypatch.setattr("amberdb.index.text.analyzer.VERSION", 99)
    from amberdb.index.text.analyzer import Analyzer

    Analyzer.of.cache_clear()
    try:
        with amberdb.connect(url) as newer:
            again = newer.collection("note", indexes=[Text("t")])
            assert found(again, "tea") == ["a"]
            assert len(newer.definition("note").indexes) == 1
            with psycopg.connect(url) as connection:
                after = connection.execute(
                    "SELECT tablename FROM pg_tables WHERE tablename ~ '^[tws][0-9]+$'"
                ).fetchall()
            assert len(after) == len(before) == 3
            assert set(after).isdisjoint(before)
    finally:
        monkeypatch.undo()
        Analyzer.of.cache_clear()
