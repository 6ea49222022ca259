"""The turns of a conversation are those of both tiers, by position, whatever left the hot one."""

import copy
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database, Document, InvalidDocumentError, Ordered, QueryError
from amberdb.chat import ChatBuffer, CollectionSink, JsonlSink, Sink
from amberdb.chat.conversations import POSITIONS_MAX
from support.chat_sinks import FullSink, MinimalSink
from support.databases import FakeClock, OpenDatabase

TTL_S = 100


@pytest.fixture
def sink() -> MinimalSink:
    return MinimalSink()


@pytest.fixture
def buffer(db: Database, sink: MinimalSink, clock: FakeClock) -> ChatBuffer:
    return ChatBuffer(db, sink, ttl_seconds=TTL_S, clock=clock)


def say(buffer: ChatBuffer, *words: str, conversation: str = "c", user: str = "u") -> None:
    for each in words:
        buffer.save_chat(each, f"about {each}", conversation, user)


def told(turns: Sequence[Document]) -> list[str]:
    return [turn["user_message"] for turn in turns]


def expire(buffer: ChatBuffer, clock: FakeClock) -> None:
    """All that was flushed leaves the hot tier."""
    clock.advance(TTL_S + 1)
    buffer.db.expire()


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 20])
def test_a_refused_turn_hides_no_later_ones(
    db: Database, buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock, limit: int
) -> None:
    sink.refused = {"bad": None}
    say(buffer, "one", "bad", "two", "three")
    buffer.flush()
    expire(buffer, clock)
    assert told(list(db["chat"].documents())) == ["bad"]
    wanted = ["one", "bad", "two", "three"]
    assert told(buffer.load_recent_context("c", limit)) == wanted[-limit:]
    say(buffer, "four")
    assert told(buffer.load_recent_context("c", limit)) == [*wanted, "four"][-limit:]


def test_whatever_is_refused_flushed_and_expired_the_last_turns_are_the_last(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    """Against a list, for conversations longer than what is remembered of them."""
    for seed in range(4):
        draw = random.Random(seed)
        db, sink = open_db(f"{seed}.amber", clock=clock), MinimalSink()
        buffer = ChatBuffer(db, sink, ttl_seconds=TTL_S, refusals_max=3, clock=clock)
        said: list[str] = []
        for number in range(POSITIONS_MAX + 60):
            said.append(f"{number}")
            buffer.save_chat(said[-1], "-", "c", draw.choice("uv"), important=draw.random() < 0.05)
            chance = draw.random()
            if chance < 0.08:
                sink.refused = dict.fromkeys(draw.sample(said, min(len(said), 3)))
                buffer.flush(draw.choice((1, 3, 100)))
            elif chance < 0.12:
                buffer.retry_dead_letters()
            elif chance < 0.2:
                clock.advance(draw.choice((TTL_S // 2, TTL_S, -TTL_S // 3)))
                db.expire()
            elif chance < 0.22:
                buffer = ChatBuffer(db, sink, ttl_seconds=TTL_S, refusals_max=3, clock=clock)
            if draw.random() < 0.5:
                limit = draw.choice((1, 3, 20, 150))
                assert told(buffer.load_recent_context("c", limit)) == said[-limit:], seed


def test_more_turns_than_the_records_list(
    buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock
) -> None:
    buffer.load_recent_context("c")
    sink.refused = {"bad": None}
    say(buffer, "first", "bad", "third")
    buffer.flush()
    expire(buffer, clock)
    later = [f"{number}" for number in range(POSITIONS_MAX + 30)]
    say(buffer, *later)
    buffer.flush()
    wanted = ["first", "bad", "third", *later]
    for limit in (len(wanted) - 1, len(wanted), 1000, 3):
        assert told(buffer.load_recent_context("c", limit)) == wanted[-limit:]


# -- when the sink is asked --------------------------------------------------------------------


def test_a_short_conversation_asks_the_sink_once(
    buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock
) -> None:
    for number in range(5):
        say(buffer, f"{number}")
        buffer.load_recent_context("c")
        buffer.flush()
        assert len(buffer.load_recent_context("c")) == number + 1
    assert sink.loads == 1
    expire(buffer, clock)
    assert told(buffer.load_recent_context("c")) == list("01234")
    assert sink.loads == 2


def test_a_long_conversation_asks_for_what_has_left_alone(
    buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock
) -> None:
    say(buffer, *"abc")
    buffer.flush()
    expire(buffer, clock)
    say(buffer, *"defg")
    buffer.flush()
    buffer.load_recent_context("c", 4)
    sink.loads = 0
    for limit in (1, 2, 3, 4):
        assert told(buffer.load_recent_context("c", limit)) == list("abcdefg")[-limit:]
    assert sink.loads == 0
    assert told(buffer.load_recent_context("c", 5)) == list("cdefg")
    assert sink.loads == 1


def test_what_the_sink_had_before_is_found(
    buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock
) -> None:
    """Rows of another system: without position, their times as text or not at all."""
    for number, time in enumerate((None, "2020-01-01T10:00:00", datetime(2020, 1, 2, tzinfo=UTC))):
        row = {"id": f"r{number}", "conversation_id": "c", "created_at": time, "position": None}
        sink.turns_by_id[f"r{number}"] = {**row, "user_message": f"old {number}"}
    sink._found = lambda **_: list(sink.turns_by_id.values())  # type: ignore[method-assign]
    say(buffer, "new")
    for _ in range(2):
        found = buffer.load_recent_context("c")
        assert told(found) == ["old 0", "old 1", "old 2", "new"]
        assert told(buffer.load_recent_context("c", 1)) == ["new"]


def test_what_the_sink_had_before_is_found_behind_what_it_got_since(
    db: Database, buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock
) -> None:
    other = ChatBuffer(db, sink, name="other", clock=clock)
    say(other, "one", "two")
    other.flush()
    clock.advance(1)
    say(buffer, "three", "four", "five")
    buffer.flush()
    for limit in (2, 3, 4, 5, 20, 1):
        wanted = ["one", "two", "three", "four", "five"][-limit:]
        assert told(buffer.load_recent_context("c", limit)) == wanted


def test_a_sink_that_is_down_gives_the_hot_turns_and_says_so(
    buffer: ChatBuffer, sink: MinimalSink, clock: FakeClock
) -> None:
    say(buffer, "old")
    buffer.flush()
    expire(buffer, clock)
    say(buffer, "new")
    sink.error = RuntimeError("maintenance")
    found = buffer.load_recent_context("c")
    assert told(found) == ["new"]
    assert not found.is_complete
    assert found.error == "RuntimeError: maintenance"
    assert not buffer.load_messages("c").is_complete
    again = copy.deepcopy(found)
    assert (again, again.error, again.is_complete) == (found, found.error, False)
    sink.error = None
    found = buffer.load_recent_context("c")
    assert told(found) == ["old", "new"]
    assert found.is_complete


def test_a_limit_is_a_number_of_turns(buffer: ChatBuffer) -> None:
    say(buffer, "one")
    assert buffer.load_recent_context("c", 0) == []
    for wrong in (-1, "x"):
        with pytest.raises(QueryError):
            buffer.load_recent_context("c", wrong)  # type: ignore[arg-type]


# -- order -------------------------------------------------------------------------------------


def test_a_clock_that_steps_back_reverses_nothing_in_the_queue_or_in_the_sink(
    open_db: OpenDatabase, sink: MinimalSink, clock: FakeClock
) -> None:
    clock.now = 0.0  # a board without a clock
    db = open_db(clock=clock)
    buffer = ChatBuffer(db, sink, ttl_seconds=TTL_S, clock=clock)
    say(buffer, "one")
    clock.advance(5_000)
    say(buffer, "two")
    clock.advance(-4_999)
    say(buffer, "three")
    assert buffer.get_stats()["pending_queue_length"] == 3
    assert buffer.flush_due(2)["flushed_count"] == 3
    assert sink.order == ["one", "two", "three"]
    clock.advance(5_000)
    expire(buffer, clock)
    clock.advance(-6_000)
    assert db["chat"].count() == 0
    say(buffer, "four")
    assert told(buffer.load_recent_context("c")) == ["one", "two", "three", "four"]


def test_in_a_transaction_turns_are_in_the_order_of_the_program(
    db: Database, buffer: ChatBuffer, sink: MinimalSink
) -> None:
    notes = db.collection("note")
    with suppress(ZeroDivisionError), db.transaction() as tx:
        buffer.save_chat("lost", "-", "c", "u", important=True, tx=tx)
        tx["note"].put({"id": "lost"})
        raise ZeroDivisionError
    with db.transaction() as tx:
        saved = buffer.save_chat("one", "-", "c", "u", important=True, tx=tx)
        buffer.save_messages([{"role": "user", "content": "two"}], "c", "u", tx=tx)
        tx["note"].put({"id": "kept"})
        assert not saved["sink_stored"]
        assert sink.stores == 0
    assert list(notes) == ["kept"]
    assert told(buffer.load_recent_context("c")) == ["one", "two"]
    assert buffer.flush()["flushed_count"] == 2


# -- tokens and messages -----------------------------------------------------------------------

CALLED: list[dict[str, Any]] = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "weather?"}, {"type": "image", "id": 1}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "t1", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "t1", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]


@pytest.mark.parametrize("kind", ["hot", "collection", "jsonl"])
def test_messages_come_back_as_they_were_given(
    db: Database, clock: FakeClock, tmp_path: Path, kind: str
) -> None:
    sinks: dict[str, Sink] = {"collection": CollectionSink(db), "jsonl": JsonlSink(tmp_path / "j")}
    buffer = ChatBuffer(db, sinks.get(kind), ttl_seconds=TTL_S, clock=clock)
    say(buffer, "hello")
    buffer.save_messages(CALLED, "c", "u")
    buffer.flush()
    expire(buffer, clock)
    messages = buffer.load_messages("c")
    first = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "about hello"}]
    assert messages == [*first, *CALLED]
    _, turn = buffer.load_recent_context("c")
    assert (turn["user_message"], turn["assistant_message"]) == ("weather?", "It rains.")


def test_a_budget_of_tokens_keeps_whole_turns_and_no_gap(db: Database) -> None:
    buffer = ChatBuffer(db, count_tokens=len)
    for words in ("aaaa", "b" * 50, "cc", "d"):
        buffer.save_chat(words, "", "c", "u")
    tokens = buffer.save_messages(CALLED, "c", "u")["token_count"]
    assert tokens > len("be briefweather?rainIt rains.weather")
    for budget, wanted in ((tokens - 1, 0), (tokens, 1), (tokens + 3, 3), (tokens + 52, 3)):
        assert len(buffer.load_recent_context("c", max_tokens=budget)) == wanted
    assert len(buffer.load_recent_context("c", max_tokens=10_000)) == 5
    assert len(buffer.load_recent_context("c", 2, max_tokens=10_000)) == 2
    db["chat"].update(buffer.load_recent_context("c")[-1]["id"], {"token_count": None})
    assert len(buffer.load_recent_context("c", max_tokens=tokens)) == 1, "counted"


@pytest.mark.parametrize("wrong", ["hi", [], [1], [{"content": "x"}], [{"role": ""}], None])
def test_what_are_no_messages_is_refused(buffer: ChatBuffer, wrong: Any) -> None:
    with pytest.raises(InvalidDocumentError):
        buffer.save_messages(wrong, "c", "u")
    with pytest.raises(InvalidDocumentError):
        buffer.save_messages([{"role": "user", "content": "x", "extra": {1}}], "c", "u")
    with pytest.raises(InvalidDocumentError):
        buffer.save_chat(None, "x", "c", "u")  # type: ignore[arg-type]
    assert buffer.get_stats()["pending_queue_length"] == 0


# -- older databases ---------------------------------------------------------------------------


def test_a_database_of_an_earlier_version(db: Database, clock: FakeClock) -> None:
    """Its indexes, a pending turn with a time in the queue, and no records of conversations."""
    db.collection(
        "chat",
        indexes=[
            Ordered("conversation_id", "position"),
            Ordered("user_id", "created_at"),
            Ordered("position"),
            Ordered("retry_at", sparse=True),
        ],
        expires_at="expires_at",
        required={"conversation_id": str, "user_id": str},
    )
    db.collection("chat_archive", indexes=[Ordered("conversation_id", "position", "created_at")])
    now = datetime.fromtimestamp(clock.now, UTC)
    turn: Document = {"conversation_id": "c", "user_id": "u", "created_at": now}
    db["chat_archive"].put({**turn, "user_message": "archived", "position": 1})
    db["chat"].put({**turn, "user_message": "pending", "position": 2, "retry_at": now})
    buffer = ChatBuffer(db, CollectionSink(db), clock=clock)
    say(buffer, "new")
    assert told(buffer.load_recent_context("c")) == ["archived", "pending", "new"]
    assert buffer.flush()["flushed_count"] == 2
    (conversation,) = buffer.conversations("u")
    assert (conversation["turns"], conversation["first_at"]) == (2, now)


def test_a_turn_of_another_program_is_read_with_defaults(db: Database, clock: FakeClock) -> None:
    sink = FullSink()
    buffer = ChatBuffer(db, sink, ttl_seconds=TTL_S, clock=clock)
    db["chat"].put({"conversation_id": "c", "user_id": "u"})
    assert len(buffer.load_recent_context("c")) == 1
    assert buffer.load_messages("c", max_tokens=5) == []
    assert buffer.conversations("u")[0]["turns"] == 1
    assert buffer.flush()["total_pending"] == 0
    assert len(list(buffer.export(user_id="u"))) == 1
    assert buffer.delete_user("u")["hot_deleted"] == 1
