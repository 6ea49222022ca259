"""Facts of a graph: one target at a time, two times, who told them, and search."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amberdb import (
    ClosedError,
    CollectionError,
    Database,
    InvalidDocumentError,
    Ordered,
    QueryError,
    Text,
    Transaction,
)
from amberdb.engine.database.transaction import TransactionCollection
from amberdb.graph import ForgottenSource, KnowledgeGraph
from support.databases import FakeClock

DAY = timedelta(days=1)
FUNCTIONAL = ("lives_in", "works_at")
CITIES = ("Beijing", "Shanghai", "Shenzhen")


@pytest.fixture
def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)


@pytest.fixture
def graph(db: Database, clock: FakeClock) -> KnowledgeGraph:
    graph = KnowledgeGraph(db, functional=FUNCTIONAL, clock=clock)
    for name in ("lin", "wang"):
        graph.add_entity(name, "person")
    for name in CITIES:
        graph.add_entity(name, "city")
    return graph


def homes(graph: KnowledgeGraph, **asked: Any) -> list[str]:
    return [each["target"] for each in graph.relations(source="lin", **asked)]


# -- functional relations --------------------------------------------------------------------


def test_a_new_target_ends_the_old_one_in_the_same_commit(
    graph: KnowledgeGraph, db: Database, clock: FakeClock, now: datetime
) -> None:
    graph.relate("lin", "knows", "wang")
    old = graph.relate("lin", "lives_in", "Beijing")
    clock.advance(86_400)
    before = db.stats()["last_lsn"]
    graph.relate("lin", "lives_in", "Shanghai", told_by="letter")
    assert db.stats()["last_lsn"] == before + 1
    assert homes(graph, relation_type="lives_in") == ["Shanghai"]
    assert homes(graph, relation_type="lives_in", as_of=now) == ["Beijing"]
    assert homes(graph, relation_type="knows") == ["wang"], "not functional"
    ended = graph.relation(old)
    assert ended is not None
    assert (ended["valid_to"], ended["ended_at"], ended["ended_by"]) == (
        now + DAY,
        now + DAY,
        "letter",
    )
    clock.advance(86_400)
    graph.relate("lin", "lives_in", "Shanghai")
    assert len(graph.relations(relation_type="lives_in", as_of="ever")) == 2, "known already"
    graph.relate("lin", "lives_in", "Beijing")
    assert homes(graph, relation_type="lives_in") == ["Beijing"], "and back again"
    assert homes(graph, relation_type="lives_in", as_of=now + DAY) == ["Shanghai"]


def test_what_is_told_of_the_past_leaves_the_present(graph: KnowledgeGraph, now: datetime) -> None:
    graph.relate("lin", "lives_in", "Shanghai", valid_from=now - 9 * DAY)
    graph.relate("lin", "lives_in", "Beijing", valid_from=now - 20 * DAY)
    assert homes(graph) == ["Shanghai"]
    assert homes(graph, as_of=now - 10 * DAY) == ["Beijing"]
    graph.relate("lin", "lives_in", "Shenzhen", valid_from=now - 5 * DAY, valid_to=now - 3 * DAY)
    assert homes(graph, as_of=now - 4 * DAY) == ["Shenzhen"]
    assert homes(graph, as_of=now - 6 * DAY) == homes(graph) == ["Shanghai"], "split in two"
    graph.relate("wang", "lives_in", "Shanghai")
    graph.relate("wang", "lives_in", "Beijing", valid_to=now - DAY)
    assert [e["target"] for e in graph.facts("wang", as_of=now - 2 * DAY)] == ["Beijing"]
    assert [e["target"] for e in graph.facts("wang")] == ["Shanghai"]


@pytest.mark.parametrize("seed", range(2))
def test_one_target_at_a_time_and_every_answer_as_it_was(
    graph: KnowledgeGraph, clock: FakeClock, now: datetime, seed: int
) -> None:
    """Told in any order, about any time: only the time that it speaks of changes, and a read
    `known_at` a time is the one of that time."""
    rng = random.Random(seed)
    days = [now + number * DAY for number in range(12)]

    def told() -> list[list[str]]:
        return [homes(graph, as_of=day) for day in days]

    known: list[tuple[datetime, list[list[str]]]] = []
    for _ in range(20):
        before = told()
        known.append((datetime.fromtimestamp(clock(), UTC), before))
        clock.advance(60)
        begin = rng.randrange(11)
        end = rng.choice((None, rng.randrange(begin + 1, 12)))
        city = rng.choice(CITIES)
        span: dict[str, Any] = {
            "valid_from": days[begin],
            "valid_to": None if end is None else days[end],
        }
        graph.relate("lin", "lives_in", city, **span)
        after = told()
        assert all(len(each) <= 1 for each in after), after
        assert after[begin] == [city]
        assert after[:begin] == before[:begin]
        if end is not None and before[begin] != [city]:
            assert after[begin:end] == [[city]] * (end - begin)
            assert after[end:] == before[end:]
    for at, answer in known:
        assert [homes(graph, as_of=day, known_at=at) for day in days] == answer


@pytest.mark.parametrize("back_s", [60, 86_400 * 40])
@pytest.mark.parametrize("cities", [("Beijing",), ("Shanghai",), ("Shenzhen", "Beijing")])
def test_a_clock_that_steps_back_reverses_nothing(
    db: Database, clock: FakeClock, cities: tuple[str, ...], back_s: int
) -> None:
    def graph() -> KnowledgeGraph:
        return KnowledgeGraph(db, functional=FUNCTIONAL, clock=clock)

    for name in ("lin", *CITIES):
        graph().add_entity(name, "thing")
    graph().relate("lin", "lives_in", "Beijing")
    clock.advance(10)
    graph().relate("lin", "lives_in", "Shanghai")
    clock.advance(-back_s)
    for city in cities:
        graph().relate("lin", "lives_in", city)
        assert homes(graph()) == [city]
    clock.advance(2 * back_s)
    assert homes(graph()) == [cities[-1]], "what was told last"
    begun = graph().relate(
        "lin", "visits", "Beijing", valid_from=datetime.fromtimestamp(clock(), UTC)
    )
    clock.advance(-back_s)
    graph().end_relation(begun)
    clock.advance(3 * back_s)
    assert homes(graph(), relation_type="visits") == []
    visit = graph().relation(begun)
    assert visit is not None
    assert visit["valid_to"] >= visit["valid_from"]


# -- the two times ---------------------------------------------------------------------------


def test_a_fact_has_the_time_of_its_truth_and_that_of_its_telling(
    graph: KnowledgeGraph, clock: FakeClock, now: datetime
) -> None:
    clock.advance(86_400)
    id = graph.relate("lin", "knows", "wang", valid_from=now - 5 * DAY)
    assert graph.facts("lin", as_of=now, known_at=now) == [], "true, and not told yet"
    assert len(graph.facts("lin", as_of=now)) == 1
    clock.advance(86_400)
    graph.end_relation(id, now - DAY)
    assert graph.facts("lin", as_of=now) == []
    (then,) = graph.facts("lin", as_of=now, known_at=now + DAY)
    assert (then["valid_to"], then["ended_at"], then["told_at"]) == (None, None, now + DAY)
    clock.advance(86_400)
    graph.end_relation(id, now - 2 * DAY)
    (then,) = graph.facts("lin", as_of="ever", known_at=now + 2 * DAY)
    assert then["valid_to"] == now - DAY, "the end that was told until then"
    assert graph.relations(as_of=now - DAY, known_at=now + 2 * DAY) == []
    for wrong in ("now", datetime(2026, 1, 1)):
        with pytest.raises(QueryError, match="known_at"):
            graph.facts("lin", known_at=wrong)  # type: ignore[arg-type]


# -- provenance ------------------------------------------------------------------------------


def test_forgetting_a_source_forgets_what_no_other_told(graph: KnowledgeGraph) -> None:
    graph.add_entity("lin", "person", observations=["drinks tea"], properties={"age": 30})
    graph.add_entity(
        "lin",
        "person",
        observations=["drinks tea", "has a cat", "is ill"],
        properties={"phone": "5"},
        told_by="chat",
    )
    graph.add_entity("lin", "person", observations=["has a cat", "sings"], told_by="mail")
    graph.add_entity("zhao", "person", told_by="chat")
    graph.relate("lin", "knows", "zhao", told_by="chat")
    graph.relate("lin", "knows", "wang", told_by="chat", fact="They met in hospital")
    graph.relate("lin", "knows", "wang", told_by="mail", properties={"since": 2020})
    assert graph.forget_source("nobody") == ForgottenSource(0, 0, 0)
    assert graph.forget_source("chat") == ForgottenSource(entities=1, observations=1, relations=1)
    lin = graph.entity("lin")
    assert lin is not None
    assert lin["observations"] == ["drinks tea", "has a cat", "sings"]
    assert lin["properties"] == {"age": 30}
    assert graph.entity("zhao") is None
    (fact,) = graph.facts("lin")
    assert (fact["fact"], fact["properties"]) == ("lin knows wang", {"since": 2020})
    assert fact["told_by"] == ["mail"]
    assert graph.search_facts("hospital") == []
    assert "chat" not in str(graph.db["graph_entities"].find())
    assert graph.forget_source("mail") == ForgottenSource(0, 2, 1)
    assert graph.db["graph_entities"]["lin"]["observations"] == ["drinks tea"]
    with pytest.raises(InvalidDocumentError):
        graph.forget_source("")


def test_a_source_and_an_alias_are_looked_up_in_an_index(
    graph: KnowledgeGraph, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    real = TransactionCollection.find

    def find(collection: Any, where: Any = None, **more: Any) -> Any:
        asked.append(dict(db[collection.name].explain(where)))
        return real(collection, where, **more)

    graph.relate("lin", "lives_in", "Beijing", told_by="a")
    graph.relate("lin", "lives_in", "Shanghai", told_by="b")
    monkeypatch.setattr(TransactionCollection, "find", find)
    graph.add_aliases("lin", ["Lily"])
    graph.relate("Lily", "lives_in", "Shenzhen", told_by="c")
    graph.forget_source("b")
    graph.merge_entities("Lily", "wang")
    assert asked
    assert all(plan["index"] for plan in asked), asked


def test_an_entity_that_others_need_stays(graph: KnowledgeGraph) -> None:
    graph.add_entity("zhao", "person", observations=["x"], told_by="chat")
    graph.relate("lin", "knows", "zhao", told_by="mail")
    assert graph.forget_source("chat") == ForgottenSource(0, 1, 0)
    zhao = graph.entity("zhao")
    assert zhao is not None
    assert (zhao["observations"], zhao["told_by"]) == ([], [])


def test_what_a_forgotten_source_ended_goes_on(
    graph: KnowledgeGraph, clock: FakeClock, now: datetime
) -> None:
    for day, (city, told_by) in enumerate(zip(CITIES, ("a", "b", "c"), strict=True)):
        graph.relate("lin", "lives_in", city, valid_from=now + day * DAY, told_by=told_by)
    clock.advance(3 * 86_400)
    graph.forget_source("b")
    assert homes(graph, as_of=now + DAY) == ["Beijing"]
    assert homes(graph, as_of=now + 2 * DAY) == homes(graph) == ["Shenzhen"]
    graph.forget_source("c")
    assert homes(graph) == ["Beijing"]
    id = graph.relate("lin", "knows", "wang", valid_to=now + 9 * DAY, told_by="d")
    graph.end_relation(id, now + DAY, told_by="e")
    assert homes(graph, relation_type="knows") == []
    graph.forget_source("e")
    relation = graph.relation(id)
    assert relation is not None
    assert (relation["valid_to"], relation["ended_by"]) == (now + 9 * DAY, "d")
    graph.relate("lin", "knows", "wang", valid_to=now + 9 * DAY, told_by="e")
    before = graph.relation(id)
    for _ in range(2):
        graph.end_relation(id, now + 9 * DAY, told_by="e")
        graph.relate("lin", "knows", "wang", valid_to=now + 9 * DAY, told_by="e")
    assert graph.relation(id) == before
    graph.forget_source("d")
    relation = graph.relation(id)
    assert relation is not None
    assert (relation["valid_to"], relation["ended_by"]) == (now + 9 * DAY, "e"), "told by two"
    correct = graph.relate("lin", "lives_in", "Shanghai", valid_from=now, told_by="f")
    assert homes(graph, relation_type="lives_in") == ["Shanghai"]
    graph.forget_source("f")
    assert homes(graph, relation_type="lives_in") == ["Beijing"], "was not wrong after all"
    assert graph.relation(correct) is None
    for city, told_by in (("Shanghai", "g"), ("Shenzhen", "h")):
        graph.relate("lin", "lives_in", city, valid_from=now, told_by=told_by)
    graph.forget_source("g")
    assert homes(graph, relation_type="lives_in", as_of=now) == ["Shenzhen"]


def test_an_observation_that_is_removed_is_in_no_record(graph: KnowledgeGraph) -> None:
    graph.add_entity("lin", "person", observations=["is ill", "sings"], told_by="chat")
    assert graph.remove_observations("lin", ["is ill"]) == 1
    assert "is ill" not in str(graph.entity("lin"))


# -- search ----------------------------------------------------------------------------------


def test_facts_are_found_by_words_as_of_a_time(graph: KnowledgeGraph, clock: FakeClock) -> None:
    graph.relate("lin", "works_at", "Shanghai", properties={"as": "engineer"})
    graph.relate("wang", "knows", "lin", fact="Wang taught Lin to play chess")

    def found(text: str, **more: Any) -> list[str]:
        return [hit.document["relation_type"] for hit in graph.search_facts(text, **more)]

    for text in ("engineers", "who works in Shanghai?", "works_at"):
        assert found(text)[:1] == ["works_at"], text
    assert found("chess") == ["knows"]
    assert found("lin", where={"source": "wang"}) == ["knows"]
    assert [hit.document["source"] for hit in graph.search_facts(query="+chess -tea")] == ["wang"]
    then = datetime.fromtimestamp(clock(), UTC)
    clock.advance(10)
    graph.relate("lin", "works_at", "Beijing")
    assert [hit.document["target"] for hit in graph.search_facts("works at")] == ["Beijing"]
    assert [hit.document["target"] for hit in graph.search_facts("works at", as_of=then)] == [
        "Shanghai"
    ]
    assert len(graph.search_facts("works at", as_of="ever")) == 2
    page = graph.search_facts("works at", as_of="ever", limit=1)
    rest = graph.search_facts("works at", as_of="ever", limit=1, after=page.cursor)
    assert {page[0].id, rest[0].id} == {h.id for h in graph.search_facts("works at", as_of="ever")}


class Meanings:
    """An embedder of three words that can be switched off."""

    def __init__(self) -> None:
        self.is_down = False
        self.calls = 0

    def __call__(self, texts: list[str]) -> list[list[float]]:
        if self.is_down:
            raise OSError("no connection")
        self.calls += 1
        words = (("feline", "cat"), ("job", "works"), ("city", "lives"))
        return [[1e-3 + any(w in text for w in each) for each in words] for text in texts]


def test_facts_are_found_by_meaning(db: Database, clock: FakeClock) -> None:
    embed = Meanings()
    graph = KnowledgeGraph(db, embed=embed, dim=3, clock=clock)
    for name in ("lin", "acme", "tom"):
        graph.add_entity(name, "thing")
    job = graph.relate("lin", "works_at", "acme")
    pet = graph.relate("lin", "owns", "tom", fact="Lin has a cat")
    assert graph.search_facts("feline")[0].id == pet
    assert graph.search_facts("job")[0].id == job
    assert "embedding" not in graph.search_facts("job")[0].document
    for facts in (graph.facts("lin"), graph.relations(), [graph.relation(job) or {}]):
        assert all("embedding" not in fact for fact in facts)
    graph.end_relation(job)
    assert "embedding" in db["graph_relations"][job], "the same text has the same vector"
    graph.relate("lin", "owns", "tom", fact="Lin has a dog")
    assert graph.search_facts("job", as_of="ever")[0].id == job
    embed.is_down = True
    graph.relate("lin", "lives_in", "acme")
    assert [hit.document["relation_type"] for hit in graph.search_facts("lives")] == ["lives_in"]
    embed.is_down = False
    db["graph_relations"].embed_missing()
    assert graph.search_facts("city")[0].document["relation_type"] == "lives_in"
    with pytest.raises(CollectionError):
        KnowledgeGraph(db, embed=embed)
    other = KnowledgeGraph(db, embed=lambda texts: [[1, 0]] * len(texts), dim=2, model="other")
    assert other.search_facts("lives")[0].document["relation_type"] == "lives_in", "by words"
    db.migrate()
    db.build_indexes()
    assert db["graph_relations"].embed_missing() == 3


# -- transactions, arguments, old databases ----------------------------------------------------


def test_every_write_is_a_part_of_the_callers_transaction(
    graph: KnowledgeGraph, db: Database
) -> None:

    def undone(write: Callable[[Any], object], tx: Transaction) -> None:
        write(tx)
        raise ZeroDivisionError

    id = graph.relate("lin", "knows", "wang", told_by="mail")
    before = [list(db[name].find()) for name in ("graph_entities", "graph_relations")]
    writes: list[Callable[[Any], object]] = [
        lambda tx: graph.add_entity("zhao", "person", tx=tx),
        lambda tx: graph.add_aliases("lin", ["Lily"], tx=tx),
        lambda tx: graph.remove_aliases("lin", ["Lily"], tx=tx),
        lambda tx: graph.remove_observations("lin", ["x"], tx=tx),
        lambda tx: graph.rename_entity("lin", "li", tx=tx),
        lambda tx: graph.merge_entities("lin", "wang", tx=tx),
        lambda tx: graph.delete_entity("lin", tx=tx),
        lambda tx: graph.relate("lin", "lives_in", "Beijing", tx=tx),
        lambda tx: graph.end_relation(id, tx=tx),
        lambda tx: graph.delete_relation(id, tx=tx),
        lambda tx: graph.delete_relations(source="lin", tx=tx),
        lambda tx: graph.forget_source("mail", tx=tx),
    ]
    for write in writes:
        tx = db.transaction()
        with pytest.raises(ZeroDivisionError), tx:
            undone(write, tx)
        assert [list(db[name].find()) for name in ("graph_entities", "graph_relations")] == before
        with pytest.raises(ClosedError):
            write(tx)
    with db.transaction() as tx:
        graph.add_entity("zhao", "person", tx=tx)
        graph.relate("zhao", "lives_in", "Beijing", tx=tx)
        graph.relate("zhao", "lives_in", "Shanghai", tx=tx)
    assert [fact["target"] for fact in graph.facts("zhao")] == ["Shanghai"]


@pytest.mark.parametrize("wrong", ["abc", b"abc", {"abc": 1}, 5, None, ["abc", 5]])
def test_a_list_of_texts_is_a_list(graph: KnowledgeGraph, wrong: Any) -> None:
    for call in (
        lambda: graph.add_entity("lin", "person", observations=wrong),
        lambda: graph.add_entity("lin", "person", aliases=wrong),
        lambda: graph.add_aliases("lin", wrong),
        lambda: graph.remove_aliases("lin", wrong),
        lambda: graph.remove_observations("lin", wrong),
        lambda: KnowledgeGraph(graph.db, functional=wrong),
    ):
        with pytest.raises(InvalidDocumentError, match="must be a"):
            call()
    refused: list[dict[str, Any]] = [{"told_by": 5}, {"told_by": ""}, {"fact": " "}, {"fact": 5}]
    refused += [{"properties": each} for each in ("abc", [("a", 1)], 5)]
    for given in refused[-3:]:
        with pytest.raises(InvalidDocumentError):
            graph.add_entity("lin", "person", **given)
    for given in refused:
        with pytest.raises(InvalidDocumentError):
            graph.relate("lin", "knows", "wang", **given)
    lin = graph.entity("lin")
    assert lin is not None
    assert lin["observations"] == lin["aliases"] == []


def test_a_graph_of_before_and_documents_of_others_are_read(
    db: Database, clock: FakeClock, now: datetime
) -> None:
    db.collection(
        "graph_entities",
        indexes=[Ordered("entity_type", "name"), Text("name", "entity_type", "observations")],
        required={"name": str, "entity_type": str},
    ).put_many({"id": name, "name": name, "entity_type": "thing"} for name in ("lin", "acme"))
    old = {"source": "lin", "relation_type": "works_at", "target": "acme", "created_at": now}
    db.collection(
        "graph_relations",
        indexes=[
            Ordered("source", "relation_type", "target", "valid_from"),
            Ordered("target", "relation_type", "source", "valid_from"),
            Ordered("relation_type", "source", "target", "valid_from"),
        ],
        required={"source": str, "target": str, "relation_type": str},
    ).put({"id": "old", **old})
    graph = KnowledgeGraph(db, functional=["works_at"], clock=clock)
    relation = graph.relation("old")
    assert relation is not None
    assert (relation["told_at"], relation["told_by"], relation["fact"]) == (
        now,
        [None],
        "lin works at acme",
    )
    assert [each["observations"] for each in graph.entities()] == [[], []]
    assert [hit.id for hit in graph.search_facts("acme")] == ["old"]
    db["graph_relations"].put(
        {"id": "new", "source": "acme", "relation_type": "x", "target": "lin"}
    )
    assert {fact["id"] for fact in graph.facts("lin", known_at=now)} == {"old", "new"}
    assert graph.search_facts("acme", as_of="ever")
    graph.end_relation("new")
    graph.add_entity("lin", "person", observations=["tea"], told_by="x", aliases=["Lily"])
    assert graph.forget_source("x") == ForgottenSource(0, 1, 0)
    assert graph.delete_entity("Lily") == 2
