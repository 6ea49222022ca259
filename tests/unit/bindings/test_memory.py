"""Layered memory as its users described it: layers, expiry, reasons, recall, and a forget that is
one."""

import copy
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from amberdb import (
    CollectionError,
    CursorError,
    Database,
    ExtractionError,
    Fusion,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
)
from amberdb.memory import Decision, Known, Layer, Memory, RecallPage, Retention
from support.databases import FakeClock, OpenDatabase

DIM = 4
CONCEPTS = {"car": 0, "automobile": 0, "tea": 1, "茶": 1, "猫": 2, "cat": 2}


def embed(texts: list[str]) -> Any:
    """By what is spoken of."""
    found: list[list[float]] = []
    for text in texts:
        vector = [0.0] * DIM
        vector[3] = 0.1
        for word, at in CONCEPTS.items():
            if word in text:
                vector[at] += 1
        found.append(vector)
    return found


@pytest.fixture
def memory(db: Database, clock: FakeClock) -> Memory:
    return Memory(db, clock=clock)


def contents(found: Sequence[Any]) -> list[str]:
    return [each["content"] for each in found]


def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.now, UTC)


# -- storing ---------------------------------------------------------------------------------


def test_a_memory_is_stored_with_its_log_entry(memory: Memory, clock: FakeClock) -> None:
    (outcome,) = memory.remember(
        "user123",
        "用户是一名软件工程师，毕业于北京大学",
        memory_layer="profile",
        category="career",
        metadata={"source": "chat"},
    )
    found = memory.get("profile", outcome.memory_id)
    assert found == {
        "id": outcome.memory_id,
        "memory_type": "user",
        "entity_id": "user123",
        "content": "用户是一名软件工程师，毕业于北京大学",
        "category": "career",
        "metadata": {"source": "chat"},
        "embedding_id": None,
        "is_permanent": True,
        "expiry_date": None,
        "created_at": now(clock),
        "updated_at": now(clock),
    }
    (entry,) = memory.logs(outcome.memory_id)
    assert entry["id"] == outcome.log_id
    assert (entry["action"], entry["memory_layer"]) == ("insert", "profile")
    assert entry["reason"] == outcome.reason == "stored in the profile layer on request"
    assert entry["metadata"] == {"source": "chat"}


def test_users_and_agents_of_one_name_are_two(memory: Memory) -> None:
    memory.remember("x", "a user", memory_layer="profile")
    memory.remember("x", "an agent", memory_layer="profile", memory_type="agent")
    assert contents(memory.profile("x")) == ["a user"]
    assert contents(memory.profile("x", memory_type="agent")) == ["an agent"]
    memory.forget("x", compact=False)
    assert contents(memory.profile("x", memory_type="agent")) == ["an agent"]


def test_events_expire_unless_they_are_permanent(
    db: Database, memory: Memory, clock: FakeClock
) -> None:
    until = now(clock) + timedelta(days=1)
    memory.remember("u", "by default", memory_layer="event")
    memory.remember("u", "for ever", memory_layer="event", is_permanent=True)
    memory.remember("u", "until tomorrow", memory_layer="event", expiry_date=until)
    memory.remember("u", "a fact", memory_layer="profile")
    clock.advance(2 * 86400)
    assert set(contents(memory.events("u"))) == {"by default", "for ever"}
    assert [found.document["content"] for found in memory.recall("tomorrow")] == []
    clock.advance(90 * 86400)
    assert contents(memory.events("u")) == ["for ever"]
    db.expire()
    assert len(db.collection("event")) == 1
    assert contents(memory.profile("u")) == ["a fact"]


def test_each_layer_has_a_retention_of_its_own(db: Database, clock: FakeClock) -> None:
    keep = Retention(profile=timedelta(days=10), event=None, log=timedelta(days=5))
    memory = Memory(db, retention=keep, clock=clock)
    (fact,) = memory.remember("u", "moves often", memory_layer="profile")
    memory.remember("u", "stays", memory_layer="profile", is_permanent=True)
    memory.remember("u", "an event", memory_layer="event")
    clock.advance(6 * 86400)
    assert memory.logs() == []
    memory.update("profile", fact.memory_id, content="moves less often")
    clock.advance(6 * 86400)
    assert set(contents(memory.profile("u"))) == {"moves less often", "stays"}
    clock.advance(6 * 86400)
    assert contents(memory.profile("u")) == ["stays"]
    assert contents(memory.events("u")) == ["an event"]


def test_an_update_changes_what_it_names_and_says_why(memory: Memory, clock: FakeClock) -> None:
    (outcome,) = memory.remember("u", "用户是一名软件工程师", memory_layer="profile")
    clock.advance(60)
    told = memory.update(
        "profile",
        outcome.memory_id,
        content="用户是一名高级软件工程师",
        reason="补充了具体的职级信息",
    )
    found = memory.get("profile", outcome.memory_id)
    assert found is not None
    assert found["content"] == "用户是一名高级软件工程师"
    assert found["updated_at"] - found["created_at"] == timedelta(seconds=60)
    assert found["is_permanent"] is True
    reasons = [entry["reason"] for entry in memory.logs(outcome.memory_id)]
    assert reasons == ["补充了具体的职级信息", outcome.reason]
    assert told.action == "update"
    until = now(clock) + timedelta(days=1)
    memory.update("profile", outcome.memory_id, expiry_date=until, category="career")
    found = memory.get("profile", outcome.memory_id)
    assert found is not None
    assert (found["is_permanent"], found["expiry_date"]) == (False, until)
    memory.update("profile", outcome.memory_id, is_permanent=True, metadata={"by": "hand"})
    found = memory.get("profile", outcome.memory_id)
    assert found is not None
    assert (found["is_permanent"], found["expiry_date"]) == (True, None)
    assert (found["category"], found["metadata"]) == ("career", {"by": "hand"})


@pytest.mark.parametrize("layer", ["profile", "event"])
def test_keys_of_metadata_may_begin_with_a_dollar(memory: Memory, layer: Layer) -> None:
    first, more = {"$source": "chat", "a.b": 1, "of": {"$n": 1}}, {"$by": "hand", "of": {"$m": 2}}
    (outcome,) = memory.remember("u", "tea", memory_layer=layer, metadata=first)
    memory.update(layer, outcome.memory_id, metadata=more)
    found = memory.get(layer, outcome.memory_id)
    assert found is not None
    assert found["metadata"] == {**first, **more, "of": {"$n": 1, "$m": 2}}


def test_the_log_of_a_deleted_memory_stays(memory: Memory) -> None:
    (outcome,) = memory.remember("u", "gone soon", memory_layer="event")
    memory.delete("event", outcome.memory_id, reason="asked to")
    assert memory.get("event", outcome.memory_id) is None
    assert [entry["action"] for entry in memory.logs(outcome.memory_id)] == ["delete", "insert"]
    assert contents(memory.events("u")) == []
    with pytest.raises(MissingKeyError, match="event"):
        memory.delete("event", outcome.memory_id)
    with pytest.raises(MissingKeyError, match="event"):
        memory.update("event", outcome.memory_id, content="back")
    assert len(memory.logs()) == 2


def test_logs_are_found_by_layer_action_and_entity(memory: Memory, clock: FakeClock) -> None:
    for number in range(6):
        layer: Layer = "profile" if number % 2 else "event"
        memory.remember(f"u{number % 3}", f"memory {number}", memory_layer=layer)
        clock.advance(1)
    assert len(memory.logs(memory_layer="profile")) == 3
    assert len(memory.logs(action="insert", entity_id="u1")) == 2
    assert memory.logs(action="delete") == []
    page = memory.logs(limit=4)
    assert len(page) == 4
    assert len(memory.logs(limit=4, after=page.cursor)) == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"memory_layer": "other"}, QueryError),
        ({}, QueryError),
        ({"memory_layer": "profile", "auto_extract": True}, QueryError),
        ({"auto_extract": True}, QueryError),
        ({"memory_layer": "profile", "category": "meeting"}, InvalidDocumentError),
        ({"memory_layer": "profile", "entity_id": ""}, QueryError),
        ({"memory_layer": "profile", "memory_type": "robot"}, QueryError),
        ({"memory_layer": "event", "content": "  "}, InvalidDocumentError),
        ({"memory_layer": "event", "expiry_date": datetime(2030, 1, 1)}, InvalidDocumentError),
        ({"memory_layer": "event", "expiry_date": "tomorrow"}, InvalidDocumentError),
        ({"memory_layer": "event", "metadata": {"x": {1, 2}}}, InvalidDocumentError),
    ],
    ids=str,
)
def test_nonsense_stores_nothing(
    memory: Memory, wrong: dict[str, Any], error: type[Exception]
) -> None:
    given: dict[str, Any] = {"entity_id": "u", "content": "something", **wrong}
    with pytest.raises(error):
        memory.remember(**given)
    assert memory.logs() == []
    assert memory.profile("u") == memory.events("u") == []


def test_categories_can_be_added(db: Database) -> None:
    memory = Memory(db, categories={"event": ["travel"]})
    memory.remember("u", "flew to Oslo", memory_layer="event", category="travel")
    memory.remember("u", "ate", memory_layer="event")
    assert contents(memory.events("u", category="travel")) == ["flew to Oslo"]
    assert contents(memory.events("u", category="other")) == ["ate"]


def test_events_between_two_times(memory: Memory, clock: FakeClock) -> None:
    start = now(clock)
    for number in range(5):
        memory.remember("u", f"e{number}", memory_layer="event")
        clock.advance(60)
    since, until = start + timedelta(seconds=60), start + timedelta(seconds=180)
    assert contents(memory.events("u", since=since, until=until)) == ["e2", "e1"]
    page = memory.events("u", limit=3)
    assert contents(page) == ["e4", "e3", "e2"]
    assert contents(memory.events("u", limit=3, after=page.cursor)) == ["e1", "e0"]


# -- recalling -------------------------------------------------------------------------------


def test_recall_finds_by_word_in_both_languages_and_layers(memory: Memory) -> None:
    memory.remember("u", "喜欢下午喝茶", memory_layer="profile")
    memory.remember("u", "yesterday's meeting was about umbrellas", memory_layer="event")
    memory.remember("v", "umbrellas too", memory_layer="event")
    assert [f.memory_layer for f in memory.recall("umbrella", entity_id="u")] == ["event"]
    assert [f.document["content"] for f in memory.recall("喝茶")] == ["喜欢下午喝茶"]
    assert len(memory.recall("umbrella")) == 2
    assert memory.recall("umbrella", layers=["profile"]) == []
    assert len(memory.recall("umbrella", where={"category": "other"}, limit=1)) == 1


@pytest.mark.parametrize(
    "text",
    ['an "umbrella', "-umbrella", "+umbrella", "umbrella*", "“umbrella”?", "umbrella " * 900],
)
def test_a_text_is_words_and_not_a_language(memory: Memory, text: str) -> None:
    memory.remember("u", "umbrellas everywhere", memory_layer="event")
    assert len(memory.recall(text)) == 1


def test_a_query_in_the_query_language(memory: Memory) -> None:
    memory.remember("u", "umbrellas everywhere", memory_layer="event")
    assert len(memory.recall(query='"umbrellas everywhere"')) == 1
    assert memory.recall(query="+umbrella -everywhere") == []
    wrong: list[dict[str, Any]] = [{"query": '"x'}, {"text": "x", "query": "x"}, {}, {"text": 3}]
    for each in wrong:
        with pytest.raises(QueryError):
            memory.recall(**each)


def test_a_text_without_words_finds_nothing(memory: Memory) -> None:
    memory.remember("u", "umbrellas everywhere", memory_layer="event")
    assert memory.recall("?!") == []
    with pytest.raises(QueryError, match=r"\$no"):
        memory.recall("umbrella", where={"a": {"$no": 1}})
    with pytest.raises(QueryError, match="layer"):
        memory.recall("umbrella", layers=[cast(Layer, "other")])


def test_recall_finds_by_meaning(db: Database, clock: FakeClock) -> None:
    memory = Memory(db, embed=embed, dim=DIM, clock=clock)
    (car,) = memory.remember("u", "bought a car", memory_layer="event")
    memory.remember("u", "养了一只猫", memory_layer="profile")
    assert memory.recall("automobile", limit=1)[0].memory_id == car.memory_id
    assert memory.recall("a cat", limit=1)[0].document["content"] == "养了一只猫"
    found = memory.get("event", car.memory_id)
    assert found is not None
    assert found["embedding_id"] == car.memory_id
    assert len(found["embedding"]) == DIM
    memory.update("event", car.memory_id, content="drinks tea")
    assert memory.recall("茶", limit=1)[0].memory_id == car.memory_id


def recall_pages(memory: Memory, limit: int, **asked: Any) -> Iterator[RecallPage]:
    after: str | None = None
    for _ in range(50):
        page = memory.recall(**asked, limit=limit, after=after)
        yield page
        after = page.cursor
        if after is None:
            return
    pytest.fail("the pages have no end")


@pytest.mark.parametrize("method", ["convex", "reciprocal_rank"])
@pytest.mark.parametrize("by", ["text", "query"])
def test_recall_goes_on_page_by_page(db: Database, clock: FakeClock, method: Any, by: str) -> None:
    memory = Memory(db, embed=embed, dim=DIM, clock=clock, fusion=Fusion(method=method))
    for n in range(24):
        layer: Layer = "event" if n % 3 else "profile"
        memory.remember(f"e{n % 5}", "tea " * (1 + n % 4) + "car", memory_layer=layer)
    found: list[tuple[str, str]] = []
    for page in recall_pages(memory, 5, **{by: "tea"}):
        found += [(each.memory_layer, each.memory_id) for each in page]
        assert copy.copy(page).cursor == page.cursor
        if page.cursor is not None:  # between two pages
            memory.update(page[0].memory_layer, page[0].memory_id, content="tea tea tea tea")
            memory.remember("e9", "tea tea tea", memory_layer="event")
    assert len(found) == len(set(found)) >= 24 + 4


def test_recall_gives_the_best_memory_of_each_group(memory: Memory) -> None:
    for n in range(20):
        layer: Layer = "event" if n % 2 else "profile"
        metadata = {"thread": n % 3} if n % 4 else {}
        memory.remember(f"e{n // 4}", "tea " * (1 + n), memory_layer=layer, metadata=metadata)
    entities = [each.document["entity_id"] for each in memory.recall("tea", group_by="entity_id")]
    assert sorted(entities) == ["e0", "e1", "e2", "e3", "e4"]
    pages = list(recall_pages(memory, 2, text="tea", group_by="entity_id"))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert {each.document["entity_id"] for page in pages for each in page} == set(entities)
    threads = [
        each.document["metadata"].get("thread")
        for each in memory.recall("tea", group_by="metadata.thread", limit=20)
    ]
    assert sorted(thread for thread in threads if thread is not None) == [0, 1, 2]
    assert threads.count(None) == 5
    for wrong in (-1, "5"):
        with pytest.raises(QueryError, match="limit"):
            memory.recall("tea", limit=cast(int, wrong))
    with pytest.raises(QueryError, match="group_by"):
        memory.recall("tea", group_by="")


def test_a_cursor_of_recall_is_of_its_question(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(9):
        memory.remember("u", "tea and rain", memory_layer="event")
    after = memory.recall("tea", limit=2).cursor
    assert after is not None
    others: list[dict[str, Any]] = [
        {"text": "rain"},
        {"text": "tea", "entity_id": "u"},
        {"text": "tea", "layers": ["event"]},
        {"text": "tea", "group_by": "category"},
        {"text": "tea", "neighbors": True},
        {"query": "tea"},
    ]
    for other in others:
        with pytest.raises(CursorError, match="another question"):
            memory.recall(**other, after=after)
    wrong: list[Any] = ["", "nonsense", "é", after[:-4], "B" + after[1:], after.encode(), 5]
    for each in wrong:
        with pytest.raises(CursorError, match="unchanged"):
            memory.recall("tea", after=each)
    monkeypatch.setattr("amberdb.memory.recall_page.SHOWN_MAX", 4)
    page = memory.recall("tea", limit=2, after=after)
    with pytest.raises(CursorError, match="narrow it by `where`"):
        memory.recall("tea", after=page.cursor)


def test_recall_looks_deeper_than_it_is_asked_for(db: Database, clock: FakeClock) -> None:
    """Second of both lists beats the first of either, though one alone is asked for."""
    memory = Memory(db, embed=embed, dim=DIM, clock=clock)
    both = "tea at noon with many guests"
    for content in ("tea, car, automobile", both, "茶", *["茶 car"] * 5):
        memory.remember("u", content, memory_layer="event")
    assert [each.document["content"] for each in memory.recall("tea", limit=1)] == [both]


def test_an_event_is_recalled_with_those_beside_it(db: Database, clock: FakeClock) -> None:
    memory = Memory(db, clock=clock)
    for entity in ("lin", "wang"):
        for text in ("where is the umbrella?", "in the car", f"thanks, {entity}"):
            memory.remember(entity, text, memory_layer="event")
    memory.remember("lin", "owns an umbrella", memory_layer="profile")
    alone = memory.recall("umbrella", entity_id="lin")
    assert len(alone) == 2
    found = memory.recall("umbrella", entity_id="lin", neighbors=True)
    contents = [each.document["content"] for each in found]
    assert sorted(contents) == [
        "in the car",
        "owns an umbrella",
        "thanks, lin",
        "where is the umbrella?",
    ]


@pytest.mark.parametrize("method", ["convex", "reciprocal_rank"])
def test_a_memory_that_both_find_comes_first_in_either_fusion(
    db: Database, clock: FakeClock, method: Any
) -> None:
    memory = Memory(db, embed=embed, dim=DIM, fusion=Fusion(method=method), clock=clock)
    both = "tea in the automobile"
    memory.remember("u", "a pot of tea", memory_layer="event")
    memory.remember("u", both, memory_layer="profile")
    memory.remember("u", "an automobile", memory_layer="event")
    assert memory.recall("tea car")[0].document["content"] == both


def test_recall_gives_as_many_as_are_asked_for(db: Database, clock: FakeClock) -> None:
    """More than both lists have within the depth of the fusion, which is 20."""
    memory = Memory(db, embed=embed, dim=DIM, clock=clock)
    for number in range(50):
        memory.remember("u", f"automobile {number}", memory_layer="event")
    assert len(memory.recall("car 7", limit=45)) == 45


@pytest.mark.parametrize(
    ("weights", "first"), [({}, 0), ({"embedding": 20}, 1), ({"content": 0}, 1)]
)
def test_words_and_meaning_have_weights(
    db: Database, clock: FakeClock, weights: dict[str, float], first: int
) -> None:
    memory = Memory(db, embed=embed, dim=DIM, fusion=Fusion(weights=weights), clock=clock)
    contents = ["new tea, car park closed", "an automobile"]
    for content in contents:
        memory.remember("u", content, memory_layer="event")
    found = [each.document["content"] for each in memory.recall("car", limit=2)]
    assert found[0] == contents[first]


def test_a_memory_is_kept_when_the_embedder_is_down(db: Database, clock: FakeClock) -> None:
    def down(texts: list[str]) -> Any:
        raise ConnectionError("the model is not there")

    memory = Memory(db, embed=down, dim=DIM, clock=clock)
    (outcome,) = memory.remember("u", "bought a car", memory_layer="event")
    assert memory.recall("car")[0].memory_id == outcome.memory_id
    memory = Memory(db, embed=embed, dim=DIM, clock=clock)
    assert db.collection("event").embed_missing() == 1
    assert memory.recall("automobile")[0].memory_id == outcome.memory_id
    with pytest.raises(CollectionError, match="dim"):
        Memory(db, embed=embed)


# -- extraction ------------------------------------------------------------------------------


class Script:
    """An extractor that says what it was told to, and keeps what it was told."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.known: Known | None = None

    def __call__(self, text: str, known: Known) -> list[Decision]:
        self.known = known
        return self.decisions


def test_an_extractor_decides_for_both_layers(db: Database, clock: FakeClock) -> None:
    script = Script()
    memory = Memory(db, extract=script, clock=clock)
    (fact,) = memory.remember("u", "is an engineer", memory_layer="profile")
    (old,) = memory.remember("u", "went to a talk", memory_layer="event")
    script.decisions = [
        Decision(
            action="update",
            memory_layer="profile",
            reason="now we know where",
            content="is an engineer in Hangzhou",
            memory_id=fact.memory_id,
        ),
        Decision(action="insert", memory_layer="event", reason="it is new", content="had tea"),
        Decision(
            action="delete", memory_layer="event", reason="it was wrong", memory_id=old.memory_id
        ),
        Decision(action="ignore", memory_layer="event", reason="small talk"),
    ]
    outcomes = memory.remember("u", "some text", auto_extract=True)
    assert [each.action for each in outcomes] == ["update", "insert", "delete", "ignore"]
    assert script.known is not None
    assert contents(script.known.profile) == ["is an engineer"]
    assert contents(script.known.events) == ["went to a talk"]
    assert contents(memory.profile("u")) == ["is an engineer in Hangzhou"]
    assert contents(memory.events("u")) == ["had tea"]
    reasons = {entry["reason"] for entry in memory.logs()}
    assert {"now we know where", "it is new", "it was wrong", "small talk"} < reasons


@pytest.mark.parametrize(
    "decision",
    [
        Decision(action="update", memory_layer="profile", reason="r", content="x", memory_id="no"),
        Decision(action="insert", memory_layer="profile", reason="r"),
        Decision(
            action="insert", memory_layer="event", reason="r", content="x", category="ability"
        ),
        Decision(action="delete", memory_layer="event", reason="r"),
    ],
    ids=lambda decision: decision.action,
)
def test_a_decision_that_makes_no_sense_stores_nothing(db: Database, decision: Decision) -> None:
    script = Script()
    memory = Memory(db, extract=script)
    good = Decision(action="insert", memory_layer="event", reason="r", content="good")
    script.decisions = [good, decision]
    with pytest.raises(ExtractionError):
        memory.remember("u", "some text", auto_extract=True)
    assert memory.events("u") == memory.logs() == []


def test_decisions_are_one_commit(memory: Memory) -> None:
    (other,) = memory.remember("v", "of somebody else", memory_layer="event")
    decisions = [
        Decision(action="insert", memory_layer="event", reason="r", content="first"),
        Decision(action="delete", memory_layer="event", reason="r", memory_id=other.memory_id),
    ]
    with pytest.raises(MissingKeyError):
        memory.apply("u", decisions)
    assert memory.events("u") == []
    assert contents(memory.events("v")) == ["of somebody else"]


# -- forgetting ------------------------------------------------------------------------------


def test_forget_leaves_nothing_in_any_file(
    open_db: OpenDatabase, clock: FakeClock, tmp_path: Path
) -> None:
    db = open_db(clock=clock)
    memory = Memory(db, embed=embed, dim=DIM, clock=clock)
    for number in range(40):
        memory.remember("u", f"unmistakable{number} car", memory_layer="event", reason="secretive")
        memory.remember("v", f"ordinary{number} tea", memory_layer="event")
    (fact,) = memory.remember("u", "unmistakable fact", memory_layer="profile")
    memory.update("profile", fact.memory_id, content="unmistakable truth", reason="secretive too")
    db.checkpoint()
    receipt = memory.forget("u")
    assert (receipt.profile, receipt.events, receipt.logs) == (1, 40, 42)
    assert receipt.is_compacted
    assert memory.recall("unmistakable", entity_id="u") == []
    assert memory.logs(entity_id="u") == []
    (after, before) = memory.logs(fact.memory_id)
    assert [after["action"], before["action"]] == ["update", "insert"]
    assert after["reason"] is before["reason"] is None
    assert "entity_id" not in after
    db.close()
    files = [path for path in (tmp_path / "t.amber").rglob("*") if path.is_file()]
    assert any(b"ordinary7" in path.read_bytes() for path in files)
    for path in files:
        assert b"unmistak" not in path.read_bytes()
        assert b"secretive" not in path.read_bytes()


@pytest.mark.parametrize("compact", [True, False])
def test_what_is_told_while_an_owner_is_forgotten_is_gone_whole(
    open_db: OpenDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compact: bool
) -> None:
    """Another thread tells it between the entries of the log and the memories."""
    db = open_db()
    memory = Memory(db)
    memory.remember("u", "likes tea", memory_layer="profile")
    redact = Memory._redact  # pyright: ignore[reportPrivateUsage]

    def and_then_tell(self: Memory, *values: Any) -> int:
        count = redact(self, *values)
        memory.remember("u", "unmistakable", memory_layer="profile", memory_id="late")
        return count

    monkeypatch.setattr(Memory, "_redact", and_then_tell)
    receipt = memory.forget("u", compact=compact)
    assert (receipt.profile, receipt.logs) == (2, 2)
    assert memory.get("profile", "late") is None
    (entry,) = memory.history("late")
    assert "after" not in entry
    assert "unmistakable" not in repr(entry)
    db.close()
    if compact:
        for path in (tmp_path / "t.amber").rglob("*"):
            assert path.is_dir() or b"unmistak" not in path.read_bytes()


def test_what_is_remembered_later_is_newer_though_the_clock_was_set_back(
    open_db: OpenDatabase,
) -> None:
    clock = FakeClock()
    memory = Memory(open_db(clock=clock), clock=clock)
    memory.remember("lin", "likes tea", memory_layer="profile")
    memory.remember("lin", "met Wu", memory_layer="event")
    clock.advance(-3600)
    memory.remember("lin", "likes coffee", memory_layer="profile")
    memory.remember("lin", "met Zhou", memory_layer="event")
    assert memory.profile("lin", limit=1)[0]["content"] == "likes coffee"
    assert memory.events("lin", limit=1)[0]["content"] == "met Zhou"
    assert memory.logs(limit=1)[0]["created_at"] >= memory.logs()[-1]["created_at"]
