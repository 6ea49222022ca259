"""Names of entities: aliases, new names, and two entities that are one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amberdb import Database, InvalidDocumentError, MissingKeyError
from amberdb.graph import KnowledgeGraph
from support.databases import FakeClock

DAY = timedelta(days=1)


@pytest.fixture
def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)


@pytest.fixture
def graph(db: Database, clock: FakeClock) -> KnowledgeGraph:
    """林 and lin are one person; acme and wang are not."""
    graph = KnowledgeGraph(db, functional=["lives_in"], clock=clock)
    graph.add_entity("lin", "person", aliases=["Lily"], observations=["sings"])
    graph.add_entity("林", "human", observations=["sings", "喜欢茶"], properties={"age": 30})
    graph.add_entity("acme", "company")
    graph.add_entity("wang", "person")
    return graph


def links(found: Any) -> list[tuple[str, str, str]]:
    return [(each["source"], each["relation_type"], each["target"]) for each in found]


def test_an_alias_leads_to_the_entity_wherever_a_name_is_given(graph: KnowledgeGraph) -> None:
    lin = graph.add_aliases("lin", ["lin2", "Lily", "lin"])
    assert lin["aliases"] == ["Lily", "lin2"]
    assert graph.entity("lin2") == graph.entity("lin") == lin
    graph.add_entity("Lily", "person", observations=["draws"])
    assert len(graph.entities()) == 4
    job = graph.relate("Lily", "works_at", "acme")
    assert graph.relate("lin", "works_at", "acme") == job
    found = [("lin", "works_at", "acme")]
    for name in ("lin", "Lily", "lin2"):
        assert links(graph.facts(name)) == links(graph.relations(source=name)) == found
        assert graph.neighbours(name) == ["acme"]
        assert graph.shortest_path("acme", name) == ["acme", "lin"]
    assert [hit.id for hit in graph.search("Lily")] == ["lin"]
    assert graph.remove_observations("Lily", ["draws"]) == 1
    assert graph.remove_aliases("lin", ["lin2"])["aliases"] == ["Lily"]
    assert graph.entity("lin2") is None
    for taken in ("wang", "林"):
        with pytest.raises(InvalidDocumentError, match="merge_entities"):
            graph.add_aliases("lin", ["new", taken])
    with pytest.raises(InvalidDocumentError, match="merge_entities"):
        graph.add_entity("zhao", "person", aliases=["Lily"])
    assert graph.entity("zhao") is graph.entity("new") is None
    assert graph.delete_relations(source="Lily") == 1
    graph.delete_entity("Lily")
    assert graph.entity("lin") is None


def test_an_entity_gets_another_name_with_its_relations(
    graph: KnowledgeGraph, db: Database
) -> None:
    graph.relate("lin", "knows", "lin")
    known = graph.relate("wang", "knows", "lin", fact="They met")
    before = db.stats()["last_lsn"]
    renamed = graph.rename_entity("Lily", "Lin Yi")
    assert db.stats()["last_lsn"] == before + 1
    assert (renamed["name"], renamed["aliases"]) == ("Lin Yi", ["Lily", "lin"])
    assert renamed["observations"] == ["sings"]
    assert graph.entity("Lin Yi") == graph.entity("lin")
    assert links(graph.facts("lin")) == [("Lin Yi", "knows", "Lin Yi"), ("wang", "knows", "Lin Yi")]
    assert (graph.relation(known) or {})["fact"] == "They met"
    assert [hit.document["source"] for hit in graph.search_facts(query='"Lin Yi knows"')] == [
        "Lin Yi"
    ]
    back = graph.rename_entity("Lin Yi", "lin", keep_alias=False)
    assert (back["name"], back["aliases"]) == ("lin", ["Lily"])
    assert graph.entity("Lin Yi") is None
    assert graph.rename_entity("lin", "lin")["aliases"] == ["Lily"]
    assert len(graph.facts("lin")) == 2
    with pytest.raises(InvalidDocumentError, match="merge_entities"):
        graph.rename_entity("lin", "wang")
    with pytest.raises(MissingKeyError):
        graph.rename_entity("nobody", "x")
    with pytest.raises(InvalidDocumentError):
        graph.rename_entity("lin", "")


def test_two_entities_become_one(
    graph: KnowledgeGraph, db: Database, clock: FakeClock, now: datetime
) -> None:
    for source, told_by in (("lin", "a"), ("林", "b")):
        graph.add_entity(source, "person", observations=["tall"], told_by=told_by)
        graph.relate(
            source, "works_at", "acme", properties={source: 1, "n": source}, told_by=told_by
        )
    graph.add_entity("lin", "person", observations=["draws"])
    graph.add_entity("林", "person", observations=["draws"], told_by="b")
    graph.relate("wang", "knows", "林")
    graph.relate("林", "same_as", "lin")
    graph.relate("林", "lives_in", "acme")
    for name, homes in (("林", ("wang", "acme")), ("lin", ("wang",))):
        for home in homes:  # the first of two is wrong
            span: dict[str, Any] = {"valid_from": now - 9 * DAY, "valid_to": now - 8 * DAY}
            graph.relate(name, "lives_in", home, **span)
    clock.advance(86_400)
    graph.relate("lin", "lives_in", "wang")
    before = db.stats()["last_lsn"]
    merged = graph.merge_entities("林", "Lily")
    assert db.stats()["last_lsn"] == before + 1
    assert graph.entity("林") == graph.entity("lin") == merged
    assert merged["observations"] == ["sings", "tall", "draws", "喜欢茶"]
    assert (merged["aliases"], merged["properties"]) == (["Lily", "林"], {"age": 30})
    assert links(graph.facts("lin")) == [
        ("lin", "lives_in", "wang"),
        ("lin", "same_as", "lin"),
        ("lin", "works_at", "acme"),
        ("wang", "knows", "lin"),
    ]
    assert links(graph.relations(relation_type="lives_in", as_of=now)) == [
        ("lin", "lives_in", "acme")
    ]
    assert links(graph.relations(relation_type="lives_in", as_of=now - 9 * DAY)) == [
        ("lin", "lives_in", "wang")
    ]
    (job,) = graph.relations(relation_type="works_at")
    assert job["properties"] == {"lin": 1, "n": "lin", "林": 1}
    graph.forget_source("a")
    lin = graph.entity("lin")
    assert lin is not None
    assert lin["observations"] == ["sings", "tall", "draws", "喜欢茶"], "b told it too"
    assert graph.relations(relation_type="works_at")[0]["properties"] == {"林": 1}
    graph.forget_source("b")
    assert (graph.entity("lin") or {})["observations"] == ["sings", "draws", "喜欢茶"]
    assert graph.relations(relation_type="works_at") == []
    with pytest.raises(InvalidDocumentError, match="one entity already"):
        graph.merge_entities("林", "Lily")
    with pytest.raises(MissingKeyError):
        graph.merge_entities("lin", "nobody")


@pytest.mark.parametrize(
    "names",
    [("e\u0301", "\u00e9"), ("x", "x "), ("Lin", "lin"), ("\u212b", "\u00c5"), ("a/b", "a\\b")],
)
def test_names_that_look_alike_are_two(db: Database, names: tuple[str, str]) -> None:
    graph = KnowledgeGraph(db)
    for name in names:
        graph.add_entity(name, "thing", observations=[repr(name)])
    graph.relate(names[0], "is_not", names[1])
    assert [(graph.entity(name) or {})["observations"] for name in names] == [
        [repr(name)] for name in names
    ]
    assert links(graph.facts(names[1])) == [(names[0], "is_not", names[1])]
    with pytest.raises(InvalidDocumentError):
        graph.rename_entity(*names)
