"""Pages of a search, and the best hit of each group. Every kind of search is paged through: at one
Lsn without repeats and gaps, and without repeats whatever is written between two pages."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import (
    Collection,
    CursorError,
    Database,
    Fusion,
    Hits,
    Neighbors,
    Ordered,
    QueryError,
    ReadableCollection,
    Recency,
    Text,
    Vector,
)
from amberdb._types import Document
from amberdb.engine.query.page import cursor_of, parts_of
from amberdb.engine.search import cursor as cursors
from amberdb.engine.search.selection import Selection
from amberdb.engine.search.vector import cache as vector_cache
from amberdb.engine.search.vector import index as vector_index
from amberdb.index.registry import IndexSpec
from support.databases import FakeClock, OpenDatabase

N = 90
DAY = datetime(2026, 1, 1, tzinfo=UTC)
INDEXES: list[IndexSpec] = [
    Ordered("thread", "n"),
    Ordered("kind"),
    Text("text"),
    Vector("v", dim=3),
]
QUERY_VECTOR = [0.3, 0.9, 0.2]


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


def note(n: int, rng: random.Random) -> Document:
    """A document that every search of SEARCHES may find."""
    return {
        "id": f"d{n:03}",
        "n": n,
        "thread": f"t{rng.randrange(12)}",
        "kind": "ab"[n % 2],
        "rest": n % 3,
        "text": "tea " * rng.randint(1, 4) + "milk " * rng.randint(0, 3) + f"word{n}",
        "v": [rng.random(), rng.random(), rng.random()],
        "at": DAY + timedelta(hours=n),
    }


@pytest.fixture
def notes(clock: FakeClock, db: Database) -> Collection:
    clock.now = (DAY + timedelta(hours=N)).timestamp()
    notes = db.collection("note", indexes=INDEXES)
    rng = random.Random(5)
    notes.put_many(note(n, rng) for n in range(N))
    return notes


SEARCHES: dict[str, dict[str, Any]] = {
    "text": {"text": "tea milk"},
    "query": {"query": '+tea "tea milk"'},
    "vector": {"vector": QUERY_VECTOR},
    "both": {"text": "tea milk", "vector": QUERY_VECTOR},
    "ranks": {
        "text": "milk",
        "vector": QUERY_VECTOR,
        "fusion": Fusion(method="reciprocal_rank", depth=5, weights={"text": 2.0}),
    },
    "by an index": {"text": "tea milk", "vector": QUERY_VECTOR, "where": {"kind": "a"}},
    "by documents": {"text": "tea milk", "vector": QUERY_VECTOR, "where": {"rest": {"$gte": 1}}},
    "recency": {"text": "tea", "recency": Recency(field="at", half_life=timedelta(days=1))},
    "neighbors": {"text": "milk", "neighbors": Neighbors(group="thread", order="n")},
    "diverse": {"text": "tea", "vector": QUERY_VECTOR, "diversity": 0.5},
    "groups": {"text": "tea milk", "vector": QUERY_VECTOR, "group_by": "thread"},
    "diverse groups": {"vector": QUERY_VECTOR, "group_by": "thread", "diversity": 0.3},
}
every_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())


def pages(
    target: ReadableCollection, search: dict[str, Any], limit: int, after: str | None = None
) -> Iterator[Hits]:
    for _ in range(200):
        page = target.search(**search, limit=limit, after=after)
        yield page
        after = page.cursor
        if after is None:
            return
    pytest.fail("the pages have no end")


# -- pages -----------------------------------------------------------------------------------


@every_search
@pytest.mark.parametrize("limit", [1, 7, 40])
def test_pages_of_a_snapshot_together_are_the_whole(
    db: Database, notes: Collection, search: dict[str, Any], limit: int
) -> None:
    if limit == 1:
        search = {**search, "where": {"n": {"$lt": 20}}}
    with db.snapshot() as at:
        target = at["note"]
        whole = ids(target.search(**search, limit=N + 1))
        paged: list[str] = []
        how: dict[str, Any] = {}
        for page in pages(target, search, limit):
            paged += ids(page)
            how = page.how
            assert len(page) == limit or page.cursor is None
            notes.put({"id": f"new{len(paged)}", "text": "tea milk", "v": QUERY_VECTOR})
        assert len(paged) == len(set(paged))
        assert set(paged) == set(whole)
        if "fusion" not in how:  # which has other candidates in longer lists
            assert paged == whole


@every_search
def test_no_document_comes_twice_whatever_is_written_between_pages(
    db: Database, notes: Collection, search: dict[str, Any]
) -> None:
    rng = random.Random(1)
    touched: set[str] = set()
    paged: list[Document] = []
    ungrouped: dict[str, Any] = {**search, "group_by": None}
    matching = set(ids(notes.search(**ungrouped, limit=N)))
    threads: list[str] = []
    for number, page in enumerate(pages(notes, search, 6)):
        paged += [hit.document for hit in page]
        threads += [hit.document["thread"] for hit in page]
        for n in rng.sample(range(N), 5):  # of documents before and behind the place
            touched.add(f"d{n:03}")
            if rng.random() < 0.3:
                notes.delete(f"d{n:03}")
            else:
                notes.put(note(n, rng))
        notes.put_many({**note(1000 + 10 * number + k, rng), "text": "milk"} for k in range(3))
        if number % 2:
            db.checkpoint()
    found = [document["id"] for document in paged]
    assert len(found) == len(set(found))
    if "group_by" in search:
        assert len(threads) == len(set(threads)) == 12
    elif "neighbors" not in search:  # by which documents of one thread join and leave
        assert matching - touched <= set(found)


def test_a_document_that_changes_groups_hides_neither_of_them(notes: Collection) -> None:
    search: dict[str, Any] = {"text": "tea", "group_by": "thread"}
    first = notes.search(**search, limit=1)
    other = notes.search(**search, limit=12)[-1].document["thread"]
    notes.update(first[0].id, {"thread": other, "text": "tea tea tea tea"})  # its best one
    rest = [hit for page in pages(notes, search, 5, first.cursor) for hit in page]
    threads = {hit.document["thread"] for hit in rest}
    assert first[0].id not in {hit.id for hit in rest}
    assert len(rest) == len(threads) == 11
    assert other in threads
    assert first[0].document["thread"] not in threads


def test_a_page_that_is_not_full_is_the_last(notes: Collection) -> None:
    assert notes.search("tea", limit=N + 1).cursor is None
    assert notes.search("nothing").cursor is None
    assert notes.search("", limit=3).cursor is None
    assert notes.search("tea", limit=0).cursor is None
    full = notes.search("tea", limit=N)
    assert full.cursor is not None
    last = notes.search("tea", limit=N, after=full.cursor)
    assert last == []
    assert last.cursor is None
    assert last.how["shown"] == N


def test_a_cursor_may_go_on_with_another_limit_other_fields_and_snippets(
    notes: Collection,
) -> None:
    first = notes.search("tea milk", limit=4)
    rest = notes.search("tea milk", limit=N, after=first.cursor, fields=["n"], snippets=True)
    assert ids(first) + ids(rest) == ids(notes.search("tea milk", limit=N))
    assert rest[0].document == {"n": int(rest[0].id[1:])}
    assert rest[0].snippet


def test_a_transaction_pages_through_its_own_documents(db: Database, notes: Collection) -> None:
    with db.transaction() as tx:
        tx["note"].put_many({"id": f"mine{n}", "text": "tea milk"} for n in range(5))
        tx["note"].delete("d000")
        found = [id for page in pages(tx["note"], {"text": "tea"}, 7) for id in ids(page)]
        assert len(found) == len(set(found)) == N + 4
        assert "d000" not in found


def test_a_cursor_goes_on_in_another_process(open_db: OpenDatabase, tmp_path: Path) -> None:
    search = SEARCHES["groups"]
    db = open_db()
    notes = db.collection("note", indexes=INDEXES)
    rng = random.Random(5)
    notes.put_many(note(n, rng) for n in range(N))
    first = notes.search(**search, limit=5)
    db.close()
    code = (
        "import amberdb, json, sys\n"
        "path, search, after = sys.argv[1:]\n"
        "with amberdb.open(path, read_only=True) as db:\n"
        "    hits = db['note'].search(**json.loads(search), limit=100, after=after)\n"
        "    print(*[hit.id for hit in hits])\n"
    )
    path = str(tmp_path / "t.amber")
    done = subprocess.run(
        [sys.executable, "-c", code, path, json.dumps(search), first.cursor or ""],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [*ids(first), *done.stdout.split()]
    with amberdb.open(path, read_only=True) as reader:
        whole = reader["note"].search(**search, limit=N)
    assert len(found) == len(set(found))
    assert set(found) == set(ids(whole))


@every_search
def test_a_page_asks_for_what_was_shown_and_itself_at_once(
    notes: Collection, search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = notes.search(**search, limit=8)
    count = 0
    selected = Selection.of

    def spy(self: Selection, *asked: Any) -> Any:
        nonlocal count
        count += 1
        return selected(self, *asked)

    monkeypatch.setattr(Selection, "of", spy)
    assert len(notes.search(**search, limit=4, after=first.cursor)) == 4
    assert count == 1


def test_pages_by_a_graph(db: Database, notes: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hnswlib")
    for name, value in (("GRAPH_ROWS", 20), ("FRESH_ROWS", 10), ("_PAUSE_S", 0.0)):
        monkeypatch.setattr(vector_cache, name, value)
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 20)
    monkeypatch.setattr(vector_index, "FLAT_ROWS", 20)
    monkeypatch.setattr(vector_index, "VISIT_ROWS", 0)
    notes.search(vector=QUERY_VECTOR)
    db.build_indexes()
    with db.snapshot() as at:
        found = list(pages(at["note"], {"vector": QUERY_VECTOR}, 8))
    assert found[0].how["indexes"]["vector:v"]["search"] == "graph"
    paged = [id for page in found for id in ids(page)]
    assert len(paged) == len(set(paged)) == N


def test_diverse_pages_are_unlike_those_before(db: Database) -> None:
    notes = db.collection("note", indexes=INDEXES)
    notes.put_many({"id": f"a{n}", "v": [1, 0.01 * n, 0]} for n in range(5))
    notes.put({"id": "b", "v": [0.7, 0, 0.7]})
    search: dict[str, Any] = {"vector": [1, 0, 0], "diversity": 0.7}
    first = notes.search(**search, limit=1)
    assert ids(first) == ["a0"]
    assert ids(notes.search(**search, limit=1, after=first.cursor)) == ["b"]


# -- limits, and what is no cursor of the search -----------------------------------------------


def test_ten_thousand_documents_are_shown_and_no_more(
    notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cursors.SHOWN_MAX == 10_000
    monkeypatch.setattr(cursors, "SHOWN_MAX", 30)
    found: list[Hits] = []
    with pytest.raises(CursorError, match=r"30 documents.*narrow it by `where`"):
        found.extend(pages(notes, {"text": "tea"}, 7))
    everything = notes.search("tea", limit=80)
    with pytest.raises(CursorError, match="narrow"):
        notes.search("tea", after=everything.cursor)
    assert everything.cursor is not None
    assert len(everything.cursor) < 400, "what no page uses is not kept"
    less = notes.search("tea", limit=29)
    assert len(notes.search("tea", limit=N, after=less.cursor)) == N - 29


def test_a_cursor_is_short(notes: Collection) -> None:
    for count in (1, 10, 80):
        cursor = notes.search(**SEARCHES["both"], limit=count).cursor
        assert cursor is not None
        assert cursor.isascii()
        assert len(cursor) <= 80 + 8 * count


BASE: dict[str, Any] = {
    "text": "tea milk",
    "vector": QUERY_VECTOR,
    "where": {"n": {"$gte": 1}},
}


@pytest.mark.parametrize(
    "other",
    [
        {"text": "tea"},
        {"text": None, "query": "tea milk"},
        {"text": None},
        {"vector": None},
        {"vector": [0.9, 0.3, 0.2]},
        {"vector": [-0.3, -0.9, -0.2]},
        {"where": {"n": {"$gte": 2}}},
        {"where": None},
        {"diversity": 0.1},
        {"group_by": "thread"},
        {"fusion": Fusion(depth=21)},
        {"recency": Recency(field="at", half_life=timedelta(days=1))},
        {"neighbors": Neighbors(group="thread", order="n")},
    ],
    ids=str,
)
def test_a_cursor_belongs_to_its_search(notes: Collection, other: dict[str, Any]) -> None:
    after = notes.search(**BASE, limit=3).cursor
    assert after is not None
    assert len(notes.search(**BASE, limit=3, after=after)) == 3
    with pytest.raises(CursorError, match=r"another search: use .* only limit, fields"):
        notes.search(**{**BASE, **other}, limit=3, after=after)


def test_a_cursor_belongs_to_its_collection(db: Database, notes: Collection) -> None:
    other = db.collection("other", indexes=INDEXES)
    with pytest.raises(CursorError, match="another search"):
        other.search("tea", after=notes.search("tea", limit=2).cursor)
    found = notes.find(limit=2).cursor
    with pytest.raises(CursorError, match="unchanged"):
        notes.search("tea", after=found)
    with pytest.raises(CursorError, match="unchanged"):
        notes.find(after=notes.search("tea", limit=2).cursor)


def test_an_embedder_may_return_nearly_the_same_vector(db: Database) -> None:
    """As those behind an API do."""
    rng = np.random.default_rng(3)
    notes = db.collection("wide", indexes=[Vector("v", dim=96)])
    notes.put_many({"v": row} for row in rng.normal(size=(20, 96)).astype(np.float32))
    for _ in range(20):
        vector = rng.normal(size=96)
        first = notes.search(vector=vector, limit=5)
        near = vector * (1 + rng.normal(size=96) * 1e-2)
        assert len(notes.search(vector=near, limit=20, after=first.cursor)) == 15
        other = vector + rng.normal(size=96)
        with pytest.raises(CursorError, match="another search"):
            notes.search(vector=other, after=first.cursor)


@pytest.mark.parametrize(
    "after",
    ["", "no cursor", "AAAA", "下", b"AAAA", 5, "A" * 100_000],
    ids=lambda each: f"{each!s:.9}",
)
def test_what_is_no_cursor_is_refused(notes: Collection, after: Any) -> None:
    with pytest.raises(CursorError, match="unchanged"):
        notes.search("tea", after=after)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("part", [None, {}, -1, 1.5, "x", b"x", b"x" * 32, b"\xff" * 32, []])
def test_a_forged_cursor_is_refused_or_shows_what_it_names(
    notes: Collection, at: int, part: Any
) -> None:
    search = SEARCHES["vector"]
    whole = ids(notes.search(**search, limit=N))
    first = notes.search(**search, limit=3)
    assert first.cursor is not None
    parts = parts_of(first.cursor, int, bytes, bytes, bytes)
    parts[at] = part
    try:
        found = ids(notes.search(**search, limit=N, after=cursor_of(parts)))
    except CursorError:
        return
    assert type(part) is bytes
    assert found in (whole, whole[3:])


@pytest.mark.parametrize("text", ["tea \ud800", "tea\0", "tea " * 20_000])
def test_pages_of_any_text(notes: Collection, text: str) -> None:
    found = [id for page in pages(notes, {"text": text}, 40) for id in ids(page)]
    assert len(found) == len(set(found)) == N


def test_a_filter_may_be_any_mapping(notes: Collection) -> None:
    where = MappingProxyType({"n": MappingProxyType({"$gte": 80})})
    first = notes.search("tea", where=where, limit=6)
    assert len(notes.search("tea", where=where, limit=6, after=first.cursor)) == 4


# -- groups ----------------------------------------------------------------------------------

GROUPED = [name for name in SEARCHES if "diver" not in name and "group" not in name]


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("limit", [1, 3, 11, 20])
def test_each_group_gives_its_best_hit(notes: Collection, name: str, limit: int) -> None:
    search = SEARCHES[name]
    best: dict[str, tuple[str, float]] = {}
    for hit in notes.search(**search, limit=N + 1):
        best.setdefault(hit.document["thread"], (hit.id, hit.score))
    hits = notes.search(**search, group_by="thread", limit=limit, fields=["thread"])
    assert len(hits) == min(limit, 12)
    threads = [hit.document["thread"] for hit in hits]
    assert len(set(threads)) == len(threads)
    if name not in ("ranks", "recency"):  # which depend on the length of the lists
        expected = dict(list(best.items())[:limit])
        assert {hit.document["thread"]: (hit.id, hit.score) for hit in hits} == expected


def test_as_many_groups_as_exist_are_found_behind_a_large_one(notes: Collection) -> None:
    notes.put_many({"thread": "large", "text": "sugar " * 3, "v": [1, 0, 0]} for _ in range(500))
    notes.put_many({"thread": f"s{n}", "text": "sugar and spice", "v": [0, 1, 0]} for n in range(5))
    by_vector = {"vector": [1, 0, 0], "where": {"text": {"$gte": "sugar"}}}
    searches: list[dict[str, Any]] = [{"text": "sugar"}, by_vector]
    for search in searches:
        hits = notes.search(**search, group_by="thread", limit=6)
        found = [hit.document["thread"] for hit in hits]
        assert found[0] == "large"
        assert set(found[1:]) >= {f"s{n}" for n in range(5)} or len(set(found)) == 6
        assert hits.how["group_by"]["field"] == "thread"
        assert hits.how["group_by"]["rows"] >= 505
    assert notes.explain(text="sugar", group_by="thread")["group_by"]["rows"] == 505


def test_a_limit_may_be_above_all_that_exists(notes: Collection) -> None:
    for search in (SEARCHES["both"], SEARCHES["by documents"]):
        assert len(notes.search(**search, group_by="thread", limit=10**12)) == 12


def test_few_documents_are_read_for_few_groups(notes: Collection) -> None:
    notes.put_many({"thread": f"x{n}", "text": "salt"} for n in range(300))
    assert notes.search("salt", group_by="thread", limit=5).how["group_by"]["rows"] == 5


VALUES: list[tuple[list[Any], int]] = [
    (["a", "a", "b"], 2),
    ([1, 1.0, True, "1"], 3),
    ([None, None, {}, {}], 4),
    ([["a"], "a", ["a", "a"]], 1),
    ([["a", "b"], ["a", "b"], [], [None]], 4),
    ([{"b": 1}, {"b": 1}, [{"b": 1}]], 3),
    ([b"a", "a", DAY, DAY], 3),
    (["x" * 5000 + "1", "x" * 5000 + "2", "x" * 5000 + "2"], 2),
    ([0.0, -0.0, 2**62, 2**62 + 1], 3),
]


@pytest.mark.parametrize(("values", "groups"), VALUES, ids=lambda each: f"{each!s:.30}")
def test_a_group_is_a_single_value(db: Database, values: list[Any], groups: int) -> None:
    notes = db.collection("any", indexes=[Text("text")])
    notes.put_many({"text": "tea", "a": {"g": value}} for value in values)
    notes.put_many({"text": "tea"} for _ in range(2))  # without the field
    for name in ("a.g", ["a", "g"]):
        assert len(notes.search("tea", group_by=name)) == groups + 2
    paged = list(pages(notes, {"text": "tea", "group_by": "a.g"}, 1))
    assert sum(map(len, paged)) == groups + 2


def test_a_vector_is_no_group(db: Database) -> None:
    notes = db.collection("note", indexes=[Text("text"), Vector("v", dim=2)])
    notes.put_many({"text": "tea", "v": [1, 2]} for _ in range(3))
    with pytest.raises(QueryError, match="holds vectors: group by another field"):
        notes.search("tea", group_by="v")
    notes = db.collection("note", indexes=[Text("text")])
    with pytest.raises(QueryError, match="holds vectors"):
        notes.search("tea", group_by="v")


@pytest.mark.parametrize("name", ["", "a..b", 5, [], ["a", 5], b"a"], ids=repr)
def test_what_is_no_field_is_refused(notes: Collection, name: Any) -> None:
    with pytest.raises(QueryError, match="group_by: "):
        notes.search("tea", group_by=name)


def test_fifty_of_a_hybrid_search_where_fifty_match(db: Database) -> None:
    notes = db.collection("note", indexes=INDEXES)
    notes.put_many({"id": f"w{n}", "text": "tea " * (n + 1)} for n in range(25))
    notes.put_many({"id": f"v{n}", "v": [1, n / 25, 0]} for n in range(25))
    whole = notes.search("tea", vector=[1, 0, 0], limit=50)
    assert len(set(ids(whole))) == len(whole) == 50
    paged = [
        id for page in pages(notes, {"text": "tea", "vector": [1, 0, 0]}, 9) for id in ids(page)
    ]
    assert len(paged) == len(set(paged)) == 50
