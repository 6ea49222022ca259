"""A knowledge graph: ends that are there, relations that hold for a time, walks, and the files of
others."""

import itertools
import json
import os
import random
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from amberdb import (
    CursorError,
    Database,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
)
from amberdb._jsonl.reader import InputDamagedError
from amberdb.graph import KnowledgeGraph, export_jsonl, import_jsonl, to_networkx, transfer, walks
from support.databases import FakeClock

DAY = timedelta(days=1)
networkx: Any = import_module("networkx")


@pytest.fixture
def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)


@pytest.fixture
def graph(db: Database, clock: FakeClock) -> KnowledgeGraph:
    """lin -works_at-> acme -located_in-> hangzhou; wang -knows-> lin; and an island."""
    graph = KnowledgeGraph(db, clock=clock)
    for name, kind in (
        ("lin", "person"),
        ("wang", "person"),
        ("acme", "company"),
        ("杭州", "city"),
        ("island", "place"),
    ):
        graph.add_entity(name, kind)
    graph.relate("lin", "works_at", "acme", properties={"as": "engineer"})
    graph.relate("acme", "located_in", "杭州")
    graph.relate("wang", "knows", "lin")
    return graph


def links(found: Any) -> list[tuple[str, str, str]]:
    return [(each["source"], each["relation_type"], each["target"]) for each in found]


# -- entities --------------------------------------------------------------------------------


def test_an_entity_that_is_told_again_keeps_what_it_had(graph: KnowledgeGraph) -> None:
    graph.add_entity("lin", "person", observations=["likes tea"], properties={"age": 30})
    found = graph.add_entity("lin", "human", observations=["likes tea", "speaks 中文"])
    assert found["entity_type"] == "human"
    assert found["observations"] == ["likes tea", "speaks 中文"]
    assert found["properties"] == {"age": 30}
    assert found == graph.entity("lin")
    assert graph.entity("nobody") is None
    assert graph.remove_observations("lin", ["likes tea", "never said"]) == 1
    with pytest.raises(MissingKeyError):
        graph.remove_observations("nobody", ["x"])
    page = graph.entities(limit=3)
    assert [each["name"] for each in page] == ["杭州", "acme", "lin"]
    assert [each["name"] for each in graph.entities(after=page.cursor, limit=3)] == [
        "wang",
        "island",
    ]
    assert [each["name"] for each in graph.entities("company")] == ["acme"]


def test_entities_are_found_by_words(graph: KnowledgeGraph) -> None:
    graph.add_entity("lin", "person", observations=["drinks oolong"])
    assert [hit.id for hit in graph.search("oolong?")] == ["lin"]
    assert [hit.id for hit in graph.search("杭州")] == ["杭州"]
    assert [hit.id for hit in graph.search(query="ool*")] == ["lin"]
    assert {hit.id for hit in graph.search("person")} == {"lin", "wang"}
    assert list(graph.search("!?")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": 7},
        {"name": "x" * 481},
        {"entity_type": ""},
        {"observations": ["good", 7]},
        {"properties": {"x": {1}}},
    ],
)
def test_an_entity_that_makes_no_sense_is_refused(
    graph: KnowledgeGraph, wrong: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"name": "new", "entity_type": "thing", **wrong}
    with pytest.raises(InvalidDocumentError):
        graph.add_entity(**given)
    assert len(graph.entities()) == 5


# -- relations -------------------------------------------------------------------------------


def test_both_ends_of_a_relation_are_there(graph: KnowledgeGraph) -> None:
    for ends in (("lin", "nobody"), ("nobody", "lin")):
        with pytest.raises(MissingKeyError, match="nobody"):
            graph.relate(ends[0], "knows", ends[1])
    with pytest.raises(InvalidDocumentError):
        graph.relate("lin", "", "wang")
    assert graph.delete_entity("lin") == 2
    assert links(graph.relations()) == [("acme", "located_in", "杭州")]
    assert graph.entity("lin") is None
    with pytest.raises(MissingKeyError):
        graph.delete_entity("lin")


def test_a_relation_to_itself_goes_with_its_entity(graph: KnowledgeGraph) -> None:
    graph.relate("lin", "trusts", "lin")
    assert links(graph.facts("lin")).count(("lin", "trusts", "lin")) == 1
    assert graph.neighbours("lin", relation_type="trusts") == []
    assert graph.delete_entity("lin") == 3


def test_a_relation_that_is_told_again_is_changed_and_not_doubled(
    graph: KnowledgeGraph, now: datetime
) -> None:
    first = graph.relate("lin", "works_at", "acme", properties={"since": 2020})
    assert graph.relate("lin", "works_at", "acme", valid_to=now + DAY) == first
    found = graph.relation(first)
    assert found is not None
    assert found["properties"] == {"as": "engineer", "since": 2020}
    assert found["valid_to"] == now + DAY
    other = graph.relate("lin", "works_at", "acme", valid_from=now + 2 * DAY)
    assert other != first
    assert len(graph.relations(source="lin", as_of="ever")) == 2
    graph.delete_relation(other)
    with pytest.raises(MissingKeyError):
        graph.delete_relation(other)
    assert graph.relation(other) is None


def test_facts_are_those_of_a_time(graph: KnowledgeGraph, now: datetime, clock: FakeClock) -> None:
    old = graph.relate("wang", "lives_in", "杭州", valid_from=now - 9 * DAY, valid_to=now - 2 * DAY)
    new = graph.relate("wang", "lives_in", "island", valid_from=now - 2 * DAY)

    def homes(as_of: Any) -> list[str]:
        found = graph.relations(source="wang", relation_type="lives_in", as_of=as_of)
        assert [each for each in graph.facts("wang", as_of=as_of) if each in found] == found
        return [each["target"] for each in found]

    assert homes(now - 10 * DAY) == []
    assert homes(now - 9 * DAY) == ["杭州"], "valid_from counts"
    assert homes(now - 2 * DAY) == ["island"], "valid_to does not"
    assert homes("now") == ["island"]
    assert homes("ever") == ["island", "杭州"]
    graph.end_relation(new)
    clock.advance(1)
    assert homes("now") == []
    ended = graph.relation(new)
    assert ended is not None
    assert ended["valid_to"] == now
    for wrong in (now - 3 * DAY, now - 2 * DAY):
        with pytest.raises(InvalidDocumentError, match="cannot end"):
            graph.end_relation(new, wrong)
    with pytest.raises(InvalidDocumentError, match="cannot end"):
        graph.relate("wang", "x", "lin", valid_from=now, valid_to=now)
    with pytest.raises(InvalidDocumentError, match="aware"):
        graph.relate("wang", "x", "lin", valid_from=datetime(2026, 1, 1))
    with pytest.raises(MissingKeyError):
        graph.end_relation("nothing")
    for bad in ("then", datetime(2026, 1, 1), None):
        with pytest.raises(QueryError):
            homes(bad)
    graph.delete_relation(old)


def test_pages_of_relations_are_of_one_moment(
    graph: KnowledgeGraph, now: datetime, clock: FakeClock
) -> None:
    for number in range(6):
        graph.add_entity(f"e{number}", "thing")
        graph.relate("lin", "has", f"e{number}", valid_to=now + timedelta(seconds=1))
    page = graph.relations(source="lin", relation_type="has", limit=4)
    clock.advance(60)
    assert page.cursor is not None
    rest = graph.relations(source="lin", relation_type="has", limit=4, after=page.cursor)
    assert [each["target"] for each in (*page, *rest)] == [f"e{number}" for number in range(6)]
    assert rest.cursor is None
    assert graph.relations(source="lin", relation_type="has") == []
    for wrong in ("", "x", "now/" + page.cursor):
        with pytest.raises(CursorError):
            graph.relations(source="lin", relation_type="has", after=wrong)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"source": "lin"}, [("lin", "works_at", "acme")]),
        ({"target": "lin"}, [("wang", "knows", "lin")]),
        ({"relation_type": "knows"}, [("wang", "knows", "lin")]),
        ({"source": "wang", "target": "lin"}, [("wang", "knows", "lin")]),
        ({"relation_type": "knows", "target": "acme"}, []),
    ],
)
def test_relations_are_found_by_each_of_their_parts(
    graph: KnowledgeGraph, asked: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert links(graph.relations(**asked)) == expected
    assert graph.delete_relations(**asked) == len(expected)
    assert len(graph.relations()) == 3 - len(expected)


@pytest.mark.slow
def test_relations_are_deleted_in_bounded_commits(graph: KnowledgeGraph, db: Database) -> None:
    with db.transaction() as tx:
        for number in range(2_100):
            begin = datetime.fromtimestamp(number, UTC)
            graph.relate("lin", "said", "wang", valid_from=begin, tx=tx)
    before = db.stats()["last_lsn"]
    assert graph.delete_relations(source="lin", relation_type="said") == 2_100
    assert db.stats()["last_lsn"] == before + 3
    with pytest.raises(QueryError):
        graph.delete_relations()


# -- walks -----------------------------------------------------------------------------------


def test_walks_go_out_and_in(graph: KnowledgeGraph) -> None:
    assert graph.neighbours("lin") == ["acme", "wang"]
    assert graph.neighbours("lin", direction="out") == ["acme"]
    assert graph.neighbours("lin", direction="in") == ["wang"]
    assert graph.neighbours("lin", relation_type="knows") == ["wang"]
    assert graph.k_hop("wang", 2) == {"lin": 1, "acme": 2}
    assert graph.k_hop("wang", 9) == {"lin": 1, "acme": 2, "杭州": 3}
    assert graph.shortest_path("wang", "杭州") == ["wang", "lin", "acme", "杭州"]
    assert graph.shortest_path("杭州", "wang", direction="out") is None
    assert graph.shortest_path("杭州", "wang", direction="in") == ["杭州", "acme", "lin", "wang"]
    assert graph.shortest_path("lin", "island") is None
    assert graph.shortest_path("lin", "lin") == ["lin"]
    for call in (
        lambda: graph.neighbours("nobody"),
        lambda: graph.facts("nobody"),
        lambda: graph.shortest_path("lin", "nobody"),
    ):
        with pytest.raises(MissingKeyError):
            call()
    wrong: Any = "sideways"
    with pytest.raises(QueryError, match="direction"):
        graph.neighbours("lin", direction=wrong)
    with pytest.raises(QueryError, match="hops"):
        graph.k_hop("lin", 0)


def test_a_walk_that_meets_too_many_says_so(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "WALK_MAX", 2)
    with pytest.raises(QueryError, match="more than 2"):
        graph.k_hop("wang", 9)


def test_a_walk_asks_an_index(graph: KnowledgeGraph, db: Database) -> None:
    names = [f"n{number}" for number in range(walks.CHUNK)]
    for end in ("source", "target"):
        for more in ({}, {"relation_type": "knows"}):
            plan = db.collection("graph_relations").explain({end: {"$in": names}, **more})
            assert plan["equals"], plan


@pytest.mark.parametrize("seed", range(5))
def test_walks_agree_with_networkx(
    db: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On random graphs, over more than one chunk."""
    monkeypatch.setattr(walks, "CHUNK", 5)
    rng = random.Random(seed)
    graph = KnowledgeGraph(db, name=f"random{seed}")
    count = 120
    with db.transaction() as tx:
        for number in range(count):
            graph.add_entity(f"n{number}", "node", tx=tx)
        for _ in range(rng.choice((60, 150, 400))):
            ends = rng.sample(range(count), 2)
            kind = rng.choice("ab")
            graph.relate(f"n{ends[0]}", kind, f"n{ends[1]}", tx=tx)
    made = to_networkx(graph)
    plain = networkx.DiGraph(made)
    both = plain.to_undirected()
    for start in rng.sample(sorted(made), 10):
        lengths: dict[str, int] = networkx.single_source_shortest_path_length(plain, start)
        assert {start: 0, **graph.k_hop(start, count, direction="out")} == lengths
        assert graph.neighbours(start) == sorted(both[start])
        goal = rng.choice(sorted(made))
        path = graph.shortest_path(start, goal)
        if path is None:
            assert not networkx.has_path(both, start, goal)
        else:
            assert len(path) - 1 == networkx.shortest_path_length(both, start, goal)
            assert all(both.has_edge(*pair) for pair in itertools.pairwise(path))


# -- in and out ------------------------------------------------------------------------------


def test_networkx_is_given_everything(graph: KnowledgeGraph, now: datetime) -> None:
    graph.add_entity("lin", "person", observations=["likes tea"], properties={"age": 30})
    graph.relate("lin", "works_at", "island", valid_from=now + DAY)
    made = to_networkx(graph)
    assert set(made) == {"lin", "wang", "acme", "杭州", "island"}
    assert made.nodes["lin"] == {
        "entity_type": "person",
        "observations": ["likes tea"],
        "properties": {"age": 30},
    }
    (edge,) = made["lin"]["acme"].values()
    assert edge == {
        "relation_type": "works_at",
        "properties": {"as": "engineer"},
        "valid_from": None,
        "valid_to": None,
    }
    assert made.number_of_edges() == 3
    assert to_networkx(graph, as_of="ever").number_of_edges() == 4


def test_without_networkx_it_says_what_to_install(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"amberdb\[graph\]"):
        to_networkx(graph)


def test_the_file_is_that_of_the_mcp_memory_server(
    graph: KnowledgeGraph, db: Database, now: datetime, tmp_path: Path
) -> None:
    graph.add_entity("lin", "person", observations=["likes tea", "喜欢猫"])
    graph.relate("lin", "works_at", "acme", valid_from=now - DAY)
    graph.relate("lin", "left", "island", valid_to=now - DAY)
    path = tmp_path / "memory.jsonl"
    assert export_jsonl(graph, path) == 8
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lin = {"name": "lin", "entityType": "person", "observations": ["likes tea", "喜欢猫"]}
    assert {"type": "entity", **lin} in lines
    works = {"from": "lin", "to": "acme", "relationType": "works_at"}
    assert [each for each in lines if each["type"] == "relation"].count(
        {"type": "relation", **works}
    ) == 1
    assert "left" not in path.read_text(encoding="utf-8")

    other = KnowledgeGraph(db, name="other")
    told: list[int] = []
    report = import_jsonl(other, path, progress=lambda report: told.append(report.same))
    assert (report.entities, report.relations, report.same, report.broken) == (5, 3, 0, [])
    again = import_jsonl(other, path)
    assert (again.entities, again.relations, again.same) == (0, 0, 8)
    assert export_jsonl(other, tmp_path / "again.jsonl") == 8
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert len(told) == 2
    entity = other.entity("lin")
    assert entity is not None
    assert entity["observations"] == ["likes tea", "喜欢猫"]


def test_no_line_is_skipped_in_silence(
    graph: KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    path = tmp_path / "memory.jsonl"
    good: dict[str, Any] = {
        "type": "entity",
        "name": "zhao",
        "entityType": "person",
        "observations": [],
    }
    lines: list[Any] = [
        {"type": "relation", "from": "zhao", "to": "lin", "relationType": "knows"},
        {"type": "relation", "from": "zhao", "to": "nobody", "relationType": "knows"},
        {**good, "observations": ["x", 7]},
        {**good, "observations": "x"},
        {**good, "name": ""},
        {"name": "no type"},
        {**good, "type": ["entity"]},
        7,
        good,
        good,
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n\n{"type": "entity", "nam'
    path.write_text(text, encoding="utf-8")
    report = import_jsonl(graph, path)
    assert (report.entities, report.relations, report.same) == (1, 1, 1)
    assert [bad.line for bad in report.broken] == [2, 3, 4, 5, 6, 7, 8, 12]
    assert report.bad == 8
    monkeypatch.setattr(transfer, "BAD_LINES_KEPT", 3)
    again = import_jsonl(graph, path)
    assert (again.bad, len(again.broken), again.same) == (8, 3, 3)
    reasons = " ".join(bad.reason for bad in report.broken)
    for word in ("nobody", "observations", "name", "JSON"):
        assert word in reasons
    assert links(graph.relations(source="zhao")) == [("zhao", "knows", "lin")]
    with pytest.raises(FileNotFoundError):
        import_jsonl(graph, tmp_path / "nothing")


def test_a_packed_file_that_was_cut_short_says_so(graph: KnowledgeGraph, tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl.gz"
    count = export_jsonl(graph, path)
    assert import_jsonl(graph, path).same == count
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputDamagedError, match="damaged after line"):
        import_jsonl(graph, path)


def test_a_lossless_export_makes_an_equal_graph(
    db: Database, clock: FakeClock, now: datetime, tmp_path: Path
) -> None:
    functional = ["lives_in"]
    graph = KnowledgeGraph(db, functional=functional, clock=clock)
    for name in ("lin", "杭州", "island", "e\u0301", "\u00e9", "x "):
        graph.add_entity(name, "thing", aliases=[f"{name}2"])
    graph.add_entity("lin", "thing", observations=["a", "b"], told_by="chat")
    graph.add_entity("lin", "thing", observations=["a"], properties={"born": now, "$date": 1})
    for day, city in enumerate(("杭州", "island", "杭州")):
        graph.relate("lin", "lives_in", city, valid_from=now + day * DAY, told_by="chat")
    for city in ("island", "杭州"):
        graph.relate("lin", "lives_in", city, valid_from=now, valid_to=now + DAY)
    graph.relate("lin", "knows", "x ", fact="a sentence", properties={"n": {"m": [now]}})
    path = tmp_path / "whole.jsonl.gz"
    assert export_jsonl(graph, path, lossless=True) == 12

    def stored(name: str) -> list[Any]:
        return [list(db[f"{name}_{kind}"].find()) for kind in ("entities", "relations")]

    clock.advance(86_400)
    other = KnowledgeGraph(db, name="other", functional=functional, clock=clock)
    report = import_jsonl(other, path)
    assert (report.entities, report.relations, report.broken) == (6, 6, [])
    assert stored("other") == stored("graph")
    again = import_jsonl(other, path)
    assert (again.entities, again.relations, again.same) == (0, 0, 12)
    graph.add_entity("lin", "thing", observations=["c"], properties={"born": now + DAY})
    graph.relate("lin", "knows", "island", properties={"n": 5})
    kept = [list(db["graph_relations"].find()), graph.entity("lin")]
    assert import_jsonl(graph, path).same == 12
    assert [list(db["graph_relations"].find()), graph.entity("lin")] == kept
    with pytest.raises(QueryError, match="as_of"):
        export_jsonl(graph, path, as_of=now, lossless=True)


def test_an_import_may_be_run_again_over_one_target_at_a_time(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    lines: list[dict[str, Any]] = [
        {"type": "entity", "name": name, "entityType": "x", "observations": [], "document": 5}
        for name in ("lin", "杭州", "island")
    ]
    lines += [
        {"type": "relation", "from": "lin", "to": city, "relationType": "lives_in"}
        for city in ("杭州", "island")
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    graph = KnowledgeGraph(db, functional=["lives_in"])
    assert import_jsonl(graph, path).relations == 2
    before = list(db["graph_relations"].find())
    assert import_jsonl(graph, path).same == 5
    assert list(db["graph_relations"].find()) == before
    assert graph.neighbours("lin") == ["island"]


def test_a_lossless_line_that_makes_no_sense_is_reported(
    graph: KnowledgeGraph, tmp_path: Path
) -> None:
    ends = {"type": "relation", "from": "lin", "to": "acme", "relationType": "x"}
    entity: dict[str, Any] = {
        "type": "entity",
        "name": "new",
        "entityType": "x",
        "observations": [],
    }
    lines: list[dict[str, Any]] = [
        {**ends, "amberdb": {}},
        {**ends, "amberdb": {"id": "a", "valid_from": "yesterday"}},
        {**ends, "amberdb": {"id": "a", "told_by": "x"}},
        {**ends, "from": "nobody", "amberdb": {"id": "a"}},
        {**entity, "amberdb": {"aliases": ["lin"]}},
        {**entity, "amberdb": {"aliases": "abc"}},
        {**entity, "amberdb": {"provenance": [{"told_by": []}]}},
        {**entity, "amberdb": {"properties": 5}},
    ]
    path = tmp_path / "memory.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    report = import_jsonl(graph, path)
    assert (report.bad, report.entities, report.relations) == (8, 0, 0)
    assert graph.entity("new") is None


@pytest.mark.parametrize("is_standard_input", [False, True])
def test_a_pipe_that_is_read_once_brings_entities_and_relations(
    graph: KnowledgeGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_standard_input: bool,
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    monkeypatch.setattr(transfer, "BATCH_BYTES_MAX", 40)  # so the relations wait on disk
    names = [f"e{number}" for number in range(6)]
    lines: list[dict[str, Any]] = [
        {"type": "relation", "from": one, "to": other, "relationType": "next"}
        for one, other in itertools.pairwise(names)
    ]
    lines += [
        {"type": "entity", "name": name, "entityType": "x", "observations": []} for name in names
    ]
    text = "\r\n".join(map(json.dumps, lines)).encode()
    read, write = os.pipe()
    with open(write, "wb") as pipe:
        pipe.write(text)
    with open(read, "rb") as pipe:
        if is_standard_input:
            monkeypatch.setattr(sys, "stdin", TextIOWrapper(pipe))
        report = import_jsonl(graph, "-" if is_standard_input else f"/dev/fd/{pipe.fileno()}")
    assert (report.entities, report.relations, report.bad) == (6, 5, 0)
    assert graph.shortest_path("e0", "e5", direction="out") == names
