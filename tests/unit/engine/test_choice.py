"""Which plan answers: the one that reads few documents, whatever the rules alone would say."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from amberdb import Collection, CursorError, Database, Ordered
from amberdb._types import Document
from amberdb.engine.query import choice
from bench.workloads import queries
from support import slices
from support.databases import OpenDatabase
from support.decoded import note_decoded
from unit.engine.helpers import ids


class Reads:
    """Counts the documents that queries decode."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Generator[Reads]:
    reads = Reads()

    def counting(_: Document) -> None:
        reads.count += 1

    with monkeypatch.context() as patch:
        note_decoded(patch, counting)
        yield reads


@pytest.fixture
def files(db: Database) -> Collection:
    """Of 3,000 files in the order of their paths 6 begin with "c/", and are the oldest."""
    files = db.collection("file", indexes=[Ordered("path"), Ordered("updated_at")])
    files.put_many(
        {"id": f"{n:04d}", "path": f"{'c' if n < 6 else 'm'}/{n:04d}", "updated_at": n}
        for n in range(3_000)
    )
    return files


IN_C = {"path": {"$gte": "c/", "$lt": "c0"}}


@pytest.mark.parametrize("is_settled", [True, False], ids=["LMDB", "memtable"])
@pytest.mark.parametrize("limit", [10, None])
def test_a_range_with_few_documents_beats_the_order(
    db: Database,
    files: Collection,
    monkeypatch: pytest.MonkeyPatch,
    is_settled: bool,
    limit: int | None,
) -> None:
    if is_settled:
        db.checkpoint()
    with counted(monkeypatch) as reads:
        found = files.find(IN_C, order_by="-updated_at", limit=limit)
    assert ids(found) == [f"{n:04d}" for n in reversed(range(6))]
    assert reads.count == 6
    plan = files.explain(IN_C, order_by="-updated_at")
    assert plan["index"] == "ordered:path"
    assert plan["order"] == "sort"
    assert plan["alternatives"] == ["ordered:updated_at"]


def test_an_order_that_meets_matches_early_beats_a_wide_range(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"path": {"$gte": "m/"}}
    with counted(monkeypatch) as reads:
        found = files.find(where, order_by="-updated_at", limit=10)
    assert ids(found) == [f"{n:04d}" for n in range(2_999, 2_989, -1)]
    assert reads.count <= choice.FEW
    assert files.explain(where, order_by="-updated_at")["index"] == "ordered:updated_at"


def test_an_order_that_meets_its_matches_late_is_given_up(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"path": {"$lt": "m/0500"}}  # the oldest 500
    with counted(monkeypatch) as reads:
        found = files.find(where, order_by="-updated_at", limit=3)
    assert ids(found) == ["0499", "0498", "0497"]
    assert reads.count <= 2 * 500


def test_of_two_indexes_without_an_order_the_one_that_finds_more_is_read(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = open_db().collection("n", indexes=[Ordered("kind"), Ordered("at")])
    notes.put_many({"id": f"{n:04d}", "kind": "turn", "at": n} for n in range(3_000))
    where = {"kind": "turn", "at": {"$gte": 2_000}}
    with counted(monkeypatch) as reads:
        first = notes.find(where, limit=20)
    assert ids(first) == [f"{n:04d}" for n in range(2_000, 2_020)]
    assert reads.count <= 2 * 20
    found, after = ids(first), first.cursor
    with counted(monkeypatch) as reads:
        while after is not None:
            page = notes.find(where, limit=20, after=after)
            found += ids(page)
            after = page.cursor
    assert found == [f"{n:04d}" for n in range(2_000, 3_000)]
    assert reads.count <= 2 * 1_000


def test_one_element_of_a_list_meets_both_ends_of_a_prefix(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bounds may be met by two elements, so only one of them is used."""
    notes = open_db().collection("n", indexes=[Ordered("tags"), Ordered("-names")])
    words = ["a", "b", "ba", "c"]
    notes.put_many(
        {"id": f"{n:04d}", "tags": [words[n % 4], n], "names": [words[n % 4], n]}
        for n in range(400)
    )
    for field in ("tags", "names"):
        where = {field: {"$prefix": "b"}}
        with counted(monkeypatch) as reads:
            assert len(notes.find(where)) == notes.count(where) == 200
        assert reads.count == 2 * 200
        assert notes.explain(where)["alternatives"] == []
        two_bounds = notes.explain({field: {"$gte": "b", "$lt": "c"}})
        assert two_bounds["alternatives"] == [two_bounds["index"]]


def test_many_values_behind_a_field_with_few_entries_are_not_looked_up(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = open_db().collection("n", indexes=[Ordered("who", "at")])
    notes.put_many({"id": f"{n:04d}", "who": f"{n % 100}", "at": n} for n in range(2_000))
    where = {"who": "7", "at": {"$in": list(range(0, 2_000, 3))}}
    plan = notes.explain(where)
    assert (plan["equals"], plan["ranges"]) == (1, 1)
    wanted = [f"{n:04d}" for n in range(7, 2_000, 100) if n % 3 == 0]
    assert ids(notes.find(where)) == wanted
    assert ids(notes.find(where, order_by="-at")) == wanted[::-1]
    where = {"who": {"$gte": "1"}, "at": {"$in": list(range(0, 2_000, 3))}}
    assert len(notes.find(where)) == sum(str(n % 100) >= "1" for n in range(0, 2_000, 3))
    found: list[str] = []
    after: str | None = None
    where = {"who": "7", "at": {"$in": list(range(0, 2_000, 3))}}
    while True:
        page = notes.find(where, limit=2, after=after)
        found += ids(page)
        after = page.cursor
        if after is None:
            break
    assert found == wanted


def test_everything_is_read_by_the_narrowest_plan(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"path": {"$gte": "m/"}, "updated_at": {"$gt": 2_700}}
    for ask in (files.count, files.find):
        with counted(monkeypatch) as reads:
            ask(where)
        assert reads.count == 299
    with counted(monkeypatch) as reads:
        assert files.delete_many(where) == 299
    assert reads.count == 299


def test_pages_go_on_in_one_order_whichever_plan_finds_them(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page comes from the order, the last ones from the range."""
    where = {"path": {"$lt": "m/2990"}}
    files.delete_many({"updated_at": {"$gte": 200, "$lt": 2_900}})
    wanted = ids(files.find(where, order_by="-updated_at"))
    assert len(wanted) == 290
    found: list[str] = []
    after: str | None = None
    with counted(monkeypatch) as reads:
        while True:
            page = files.find(where, order_by="-updated_at", limit=40, after=after)
            found += ids(page)
            after = page.cursor
            if after is None:
                break
    assert found == wanted
    assert reads.count <= 8 * 2 * choice.FEW + 290


def test_a_cursor_of_an_order_goes_on_where_few_are_left(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own scan would read all others to the end."""
    files.update("0003", {"updated_at": 9_000})
    files.update("2000", {"path": "c/2000"})
    monkeypatch.setattr(choice, "FEW", 1)  # so that the order is read first
    first = files.find(IN_C, order_by="-updated_at", limit=1)
    assert ids(first) == ["0003"]
    files.insert({"id": "new", "path": "c/new", "updated_at": 9_001})  # before the cursor
    with counted(monkeypatch) as reads:
        rest = files.find(IN_C, order_by="-updated_at", limit=20, after=first.cursor)
    assert ids(rest) == ["2000", "0005", "0004", "0002", "0001", "0000"]
    assert reads.count <= 3 * 8
    second = files.find(IN_C, order_by="-updated_at", limit=2, after=first.cursor)
    assert ids(second) == ["2000", "0005"]
    assert ids(files.find(IN_C, order_by="-updated_at", limit=2, after=second.cursor)) == [
        "0004",
        "0002",
    ]


def test_a_cursor_of_a_dropped_index_is_refused(db: Database, files: Collection) -> None:
    page = files.find({"path": {"$gte": "m/"}}, order_by="-updated_at", limit=3)
    db.collection("file", indexes=[Ordered("path")])
    with pytest.raises(CursorError, match="start again"):
        files.find({"path": {"$gte": "m/"}}, order_by="-updated_at", limit=3, after=page.cursor)


def test_many_values_are_ranges_unless_there_are_fewer_documents(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = open_db().collection("n", indexes=[Ordered("x")])
    notes.put_many({"id": f"{n:04d}", "x": n} for n in range(2_000))
    where = {"x": {"$in": list(range(0, 2_000, 4))}}
    with counted(monkeypatch) as reads:
        assert len(notes.find(where)) == 500
    assert reads.count == 500
    assert notes.explain(where)["ranges"] == 500
    where = {"x": {"$in": list(range(1_000, 9_000))}}
    assert notes.explain(where)["index"] is None
    with counted(monkeypatch) as reads:
        assert len(notes.find(where)) == 1_000
    assert reads.count == 2_000


@pytest.mark.parametrize("order", ["at", "-at"])
def test_ranges_of_several_values_are_merged_into_an_order(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Long texts too, whose keys are cut."""
    notes = open_db().collection("n", indexes=[Ordered("who", "at")])
    names = ["a", "b" * 600, "b" * 600 + "c", "d"]
    notes.put_many({"id": f"{n:04d}", "who": names[n % 4], "at": n // 8} for n in range(800))
    where = {"who": {"$in": [*names[1:], "nobody"]}, "at": {"$gte": 10, "$lt": 90}}
    wanted = [f"{n:04d}" for n in range(80, 720) if n % 4]
    wanted = wanted if order == "at" else wanted[::-1]
    assert notes.explain(where, order_by=order)["order"] == "index"
    with counted(monkeypatch) as reads:
        assert ids(notes.find(where, order_by=order, limit=10)) == wanted[:10]
    assert reads.count == 10
    found: list[str] = []
    after: str | None = None
    while True:
        page = notes.find(where, order_by=order, limit=70, after=after)
        found += ids(page)
        after = page.cursor
        if after is None:
            break
    assert found == wanted


def test_one_list_makes_a_range_with_two_bounds_one_sided_on_the_better_side(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = open_db().collection("n", indexes=[Ordered("x")])
    notes.put_many({"id": f"{n:04d}", "x": n} for n in range(2_000))
    notes.put({"id": "list", "x": [1, 1_900]})
    for low, high, most in ((5, 15, 17), (1_985, 1_995, 16)):
        where = {"x": {"$gte": low, "$lt": high}}
        with counted(monkeypatch) as reads:
            found = ids(notes.find(where))
        assert sorted(found) == [*(f"{n:04d}" for n in range(low, high)), *["list"] * (low < 1_900)]
        assert reads.count <= most
        paged: list[str] = []
        after: str | None = None
        while True:
            page = notes.find(where, limit=3, after=after)
            paged += ids(page)
            after = page.cursor
            if after is None:
                break
        assert sorted(paged) == sorted(found)


# -- a set of schemas, documents and queries ---------------------------------------------------

DOCUMENTS = 1_200
QUERIES = 40


@pytest.mark.slow
@pytest.mark.parametrize("number", slices.parameters(2, range(len(queries.SCHEMAS))))
def test_no_plan_reads_much_less_than_the_one_that_is_chosen(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The other plans are those of collections with one of the indexes each, and with none."""
    db = open_db()
    indexes = queries.SCHEMAS[number]
    all_indexed, plain = db.collection("all", indexes=list(indexes)), db.collection("plain")
    single = [db.collection(f"only{at}", indexes=[spec]) for at, spec in enumerate(indexes)]
    documents = list(queries.documents(number, DOCUMENTS))
    for collection in (all_indexed, plain, *single):
        collection.put_many(documents)
    db.checkpoint()
    for at, (where, order, limit) in enumerate(queries.asked(number, DOCUMENTS, QUERIES)):
        limits = [limit, limit if at % 2 else None]  # of the first page, and of what follows it
        wanted = list(_pages(monkeypatch, plain, where, order, limits))
        found = list(_pages(monkeypatch, all_indexed, where, order, limits))
        others = [list(_pages(monkeypatch, each, where, order, limits)) for each in single]
        for number_of_page, (page, reads) in enumerate(found):
            read = [pages[number_of_page][1] for pages in others if number_of_page < len(pages)]
            best = min([DOCUMENTS, *read])
            what = f"{where} {order} {limits} page {number_of_page}: {reads}, {best}"
            if order is None:
                assert set(page) <= set(ids(plain.find(where))), what
            else:
                assert page == wanted[number_of_page][0], what
            assert reads <= 3 * best + choice.FEW, what
        if order is None:
            assert len(found[0][0]) == len(wanted[0][0])


def _pages(
    monkeypatch: pytest.MonkeyPatch,
    of: Collection,
    where: Any,
    order: Any,
    limits: list[int | None],
) -> Iterator[tuple[list[str], int]]:
    """The ids of a page and of what follows it, with the documents read and the ranges sought."""
    after: str | None = None
    ranges = of.explain(where, order_by=order)["ranges"]
    for limit in limits:
        with counted(monkeypatch) as reads:
            page = of.find(where, order_by=order, limit=limit, after=after)
        yield ids(page), reads.count + ranges
        after = page.cursor
        if after is None:
            return


def test_the_rest_of_a_result_is_read_by_the_best_plan(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = files.find(IN_C, order_by="-updated_at", limit=2)
    with counted(monkeypatch) as reads:
        rest = files.find(IN_C, order_by="-updated_at", after=page.cursor)
    assert ids(rest) == ["0003", "0002", "0001", "0000"]
    assert reads.count == 6


def test_many_values_give_the_order_of_their_field(
    files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = list(range(0, 3_000, 30))
    where = {"updated_at": {"$in": times}, "path": {"$gte": "m/"}}
    for limit in (5, None):
        with counted(monkeypatch) as reads:
            page = files.find(where, order_by="-updated_at", limit=5)
            rest = files.find(where, order_by="-updated_at", limit=limit, after=page.cursor)
        found = [*ids(page), *ids(rest)]
        assert found == [f"{n:04d}" for n in reversed(times[1:])][: len(found)]
        assert reads.count <= 2 * len(times)
