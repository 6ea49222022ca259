"""A chat buffer: what is acknowledged is there, what is flushed is in the sink, and nothing expires
before that."""

import threading
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from amberdb import ClockWarning, Database, Document, InvalidDocumentError, NoThreadWarning
from amberdb.chat import (
    ChatBuffer,
    CollectionSink,
    Flusher,
    JsonlSink,
    Schedule,
    Sink,
    count_tokens,
    delivery,
    positions,
)
from amberdb.chat import buffer as chat
from support.databases import FakeClock, OpenDatabase


class Failing:
    """A sink that refuses some turns, or all, and keeps the rest in a dictionary."""

    def __init__(self) -> None:
        self.turns: dict[str, Document] = {}
        self.is_down = False
        self.refused: set[str] = set()
        self.calls = 0
        self.stored = threading.Event()

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        self.calls += 1
        if self.is_down:
            raise ConnectionError("nobody there")
        kept = {turn["id"]: turn for turn in turns if turn["user_message"] not in self.refused}
        self.turns.update(kept)
        self.stored.set()
        return {turn["id"]: "not this one" for turn in turns if turn["id"] not in kept}

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        return []


@pytest.fixture
def sink() -> Failing:
    return Failing()


@pytest.fixture
def buffer(db: Database, sink: Failing, clock: FakeClock) -> ChatBuffer:
    return ChatBuffer(db, sink, clock=clock)


def said(buffer: ChatBuffer, clock: FakeClock, count: int, conversation: str = "c") -> list[str]:
    found: list[str] = []
    for number in range(count):
        found.append(buffer.save_chat(f"q{number}", f"a{number}", conversation, "u")["cid"])
        clock.advance(1)
    return found


# -- the document's samples ------------------------------------------------------------------


def test_a_turn_is_kept_at_once_and_flushed_later(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    result = buffer.save_chat(
        user_message="你好",
        assistant_message="您好！",
        conversation_id="conv_123",
        user_id="user_456",
    )
    cid = result["cid"]
    assert result == {
        "success": True,
        "hot_stored": True,
        "redis_stored": True,
        "sink_stored": False,
        "supabase_stored": False,
        "token_count": 5,
        "conversation_id": "conv_123",
        "cid": cid,
        "note": "in the hot tier; flush() sends it to the sink",
    }
    assert buffer.get_stats() == {
        "status": "active",
        "pending_queue_length": 1,
        "failed_queue_length": 0,
        "dead_letter_count": 0,
        "last_error": None,
        "ttl_seconds": 172800,
    }
    flushed = buffer.flush(batch_size=100)
    assert flushed == {"success": True, "total_pending": 1, "flushed_count": 1, "failed_count": 0}
    assert sink.turns[cid]["user_message"] == "你好"
    assert "retry_at" not in sink.turns[cid]
    assert buffer.get_stats()["pending_queue_length"] == 0
    again = buffer.flush()
    assert again == {"success": True, "total_pending": 0, "flushed_count": 0, "failed_count": 0}


def test_important_turns_and_a_buffer_that_writes_through_go_to_the_sink_at_once(
    db: Database, buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    assert buffer.save_chat("q", "a", "c", "u", important=True)["sink_stored"]
    sink.is_down = True
    result = buffer.save_chat("q", "a", "c", "u", important=True)
    assert (result["success"], result["sink_stored"]) == (True, False)
    assert buffer.get_stats()["status"] == "failing"
    sink.is_down = False
    assert buffer.flush()["flushed_count"] == 1
    through = ChatBuffer(db, sink, write_through=True, clock=clock)
    assert through.save_chat("q", "a", "c", "u")["sink_stored"]
    assert len(sink.turns) == 3


# -- flushing --------------------------------------------------------------------------------


def test_all_that_is_pending_is_drained_in_batches(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    said(buffer, clock, 25)
    assert buffer.flush(10)["flushed_count"] == 25
    assert sink.calls == 3
    with pytest.raises(ValueError, match="batch_size"):
        buffer.flush(0)


@pytest.mark.parametrize("due", [False, True])
def test_what_is_said_during_a_flush_is_for_the_next_one(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock, due: bool
) -> None:
    """Or a flush beside a busy conversation would have no end."""
    flush = buffer.flush_due if due else buffer.flush
    said(buffer, clock, 4)
    store = sink.store

    def busy(turns: Sequence[Document]) -> Mapping[str, str]:
        clock.advance(1)
        if sink.calls < 20:
            said(buffer, clock, 2)
        return store(turns)

    sink.store = busy  # type: ignore[method-assign]
    assert flush(2)["total_pending"] == 4
    assert sink.calls == 2
    assert flush(2)["total_pending"] == 4


def test_what_is_refused_stays_pending_with_its_error(
    db: Database, buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    cids = said(buffer, clock, 5)
    sink.refused = {"q2"}
    flushed = buffer.flush(2)
    assert flushed == {"success": False, "total_pending": 5, "flushed_count": 4, "failed_count": 1}
    refused = db.collection("chat").get(cids[2])
    assert refused is not None
    assert (refused["attempts"], refused["error"]) == (1, "not this one")
    stats = buffer.get_stats()
    assert (stats["pending_queue_length"], stats["failed_queue_length"]) == (1, 1)
    assert buffer.flush_due()["total_pending"] == 0, "its pause is not over"
    clock.advance(delivery.RETRY_S)
    assert buffer.flush_due()["failed_count"] == 1
    clock.advance(delivery.RETRY_S)
    assert buffer.flush_due()["total_pending"] == 0, "the second pause is longer"
    clock.advance(delivery.RETRY_S)
    sink.refused = set()
    assert buffer.flush_due()["flushed_count"] == 1
    assert buffer.get_stats()["status"] == "active"


def test_a_sink_that_is_down_loses_nothing(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    said(buffer, clock, 7)
    sink.is_down = True
    assert buffer.flush(3)["failed_count"] == 7
    assert "nobody there" in buffer.get_stats()["last_error"]
    sink.is_down = False
    assert buffer.flush(3)["flushed_count"] == 7
    assert len(sink.turns) == 7


def test_a_turn_expires_only_after_it_was_flushed(
    db: Database, buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    said(buffer, clock, 3)
    clock.advance(30 * 86400)
    db.expire()
    assert len(db.collection("chat")) == 3
    buffer.flush()
    assert len(sink.turns) == 3
    clock.advance(172_000)
    db.expire()
    assert len(db.collection("chat")) == 3, "the time to live counts from the flush"
    clock.advance(1000)
    assert len(db.collection("chat")) == 0


def test_the_time_to_live_is_the_environments(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(chat.TTL_VARIABLE, "60")
    assert ChatBuffer(db).get_stats()["ttl_seconds"] == 60
    assert ChatBuffer(db, ttl_seconds=5).ttl_seconds == 5
    for wrong in ("soon", "0", "-3"):
        monkeypatch.setenv(chat.TTL_VARIABLE, wrong)
        with pytest.raises(ValueError, match="seconds"):
            ChatBuffer(db)


def test_pending_turns_survive_and_are_flushed_after_a_crash(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    """Between the sink and the mark: handed over again, under the same id."""
    db = open_db(clock=clock)
    buffer = ChatBuffer(db, clock=clock)
    cids = said(buffer, clock, 4)
    assert buffer.flush() == {
        "success": False,
        "total_pending": 4,
        "flushed_count": 0,
        "failed_count": 0,
    }
    db.close()
    db = open_db(clock=clock)
    archive = CollectionSink(db)
    archive.store([{**turn, "user_message": "seen"} for turn in db.collection("chat").find()])
    buffer = ChatBuffer(db, archive, clock=clock)
    assert buffer.flush()["flushed_count"] == 4
    assert len(db.collection("chat_archive")) == 4
    assert {turn["id"] for turn in db.collection("chat_archive").find()} == set(cids)


@pytest.mark.parametrize(
    "wrong", [{"conversation_id": ""}, {"user_id": 7}, {"metadata": {"x": {1}}}]
)
def test_nonsense_is_refused(buffer: ChatBuffer, wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"conversation_id": "c", "user_id": "u", **wrong}
    with pytest.raises(InvalidDocumentError):
        buffer.save_chat("q", "a", **given)
    assert buffer.get_stats()["pending_queue_length"] == 0


def test_tokens_are_counted_by_whoever_can(db: Database) -> None:
    assert (count_tokens("你好"), count_tokens("hello there"), count_tokens("")) == (2, 3, 0)
    buffer = ChatBuffer(db, count_tokens=len)
    assert buffer.save_chat("four", "five!", "c", "u")["token_count"] == 9


# -- context ---------------------------------------------------------------------------------


@pytest.fixture(params=["collection", "jsonl"])
def kept(request: pytest.FixtureRequest, db: Database, tmp_path: Path) -> Sink:
    return CollectionSink(db) if request.param == "collection" else JsonlSink(tmp_path / "c.jsonl")


def test_context_falls_through_to_the_sink(db: Database, kept: Sink, clock: FakeClock) -> None:
    buffer = ChatBuffer(db, kept, ttl_seconds=100, clock=clock)
    assert buffer.load_recent_context("c") == []
    old = said(buffer, clock, 5)
    buffer.flush()
    said(buffer, clock, 3, "another")
    clock.advance(1000)
    db.expire()
    new = said(buffer, clock, 3)
    found = buffer.load_recent_context("c", limit=6)
    assert [turn["id"] for turn in found] == [*old[2:], *new]
    assert [turn["user_message"] for turn in found][:2] == ["q2", "q3"]
    buffer.flush()
    assert [turn["id"] for turn in buffer.load_recent_context("c", limit=100)] == [*old, *new]
    assert len(buffer.load_recent_context("c", limit=2)) == 2


def test_turns_of_one_moment_are_told_once(db: Database, kept: Sink, clock: FakeClock) -> None:
    buffer = ChatBuffer(db, kept, clock=clock)
    cids = {buffer.save_chat(f"q{number}", "a", "c", "u")["cid"] for number in range(6)}
    buffer.flush()
    found = [turn["id"] for turn in buffer.load_recent_context("c", limit=10)]
    assert len(found) == 6
    assert set(found) == cids


def test_a_sink_knows_a_turn_by_its_id(kept: Sink) -> None:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    turns: list[Document] = [
        {
            "id": f"t{n}",
            "conversation_id": "c",
            "created_at": made + timedelta(seconds=n),
            "text": "一",
        }
        for n in range(4)
    ]
    assert kept.store(turns) == {}
    assert kept.store(turns[1:3]) == {}
    assert list(kept.load("c", 10, None)) == turns[::-1]
    assert list(kept.load("c", 2, turns[2]["created_at"])) == [turns[2], turns[1]]
    assert list(kept.load("other", 10, None)) == []


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    sink = JsonlSink(path)
    made = datetime(2026, 1, 1, tzinfo=UTC)
    first: Document = {"id": "a", "conversation_id": "c", "created_at": made}
    sink.store([first])
    with path.open("ab") as file:
        file.write(b'{"id": "torn", "conv')
    second: Document = {"id": "b", "conversation_id": "c", "created_at": made + timedelta(1)}
    sink.store([second])
    assert list(sink.load("c", 10, None)) == [second, first]


# -- schedule --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "zone", "now", "expected"),
    [
        (None, None, "2026-03-01T10:00", "2026-03-01T10:05"),
        ("02:00-04:00", "UTC", "2026-03-01T10:00", "2026-03-02T02:00"),
        ("02:00-04:00", "UTC", "2026-03-01T01:00", "2026-03-01T02:00"),
        ("02:00-04:00", "UTC", "2026-03-01T02:00", "2026-03-01T02:05"),
        ("02:00-04:00", "UTC", "2026-03-01T03:56", "2026-03-02T02:00"),
        ("02:00-04:00", "Asia/Shanghai", "2026-03-01T10:00", "2026-03-01T18:00"),
        ("23:00-01:00", "UTC", "2026-03-01T23:58", "2026-03-02T00:03"),
        ("23:00-01:00", "UTC", "2026-03-01T00:58", "2026-03-01T23:00"),
    ],
)
def test_when_it_is_time(window: str | None, zone: str | None, now: str, expected: str) -> None:
    schedule = Schedule(300, window=window, zone=ZoneInfo(zone) if zone else None)
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert schedule.next_after(at) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize("wrong", ["2-4", "02:00", "02:00-02:00", "02:00-25:00"])
def test_a_window_that_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="window"):
        Schedule(window=wrong)
    with pytest.raises(ValueError, match="every_s"):
        Schedule(0)


def test_the_flusher_flushes_at_its_times_and_when_woken(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    said(buffer, clock, 3)
    with Flusher(buffer, Schedule(0.01), clock=clock):
        assert sink.stored.wait(60)
    assert len(sink.turns) == 3
    said(buffer, clock, 1)
    sink.stored.clear()
    with Flusher(buffer, Schedule(3600), clock=clock) as flusher:
        flusher.wake()
        assert sink.stored.wait(60)
    assert len(sink.turns) == 4
    assert not any(thread.name == "amberdb-chat" for thread in threading.enumerate())


def test_a_turn_that_the_sink_raises_for_holds_up_none_of_its_batch(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cids = said(buffer, clock, 100)
    store, failed = sink.store, set[str]()

    def raises(turns: Sequence[Document]) -> Mapping[str, str]:
        if any(turn["id"] in bad for turn in turns):
            failed.update(turn["id"] for turn in turns)
            raise UnicodeError("not these " + "x" * 10_000)
        return store(turns)

    bad = {cids[0], cids[61], cids[99]}
    monkeypatch.setattr(sink, "store", raises)
    assert buffer.flush()["flushed_count"] == 97
    assert set(sink.turns) == set(cids) - bad
    assert buffer.get_stats()["failed_queue_length"] == 3
    assert len(buffer.get_stats()["last_error"]) <= delivery.REASON_MAX
    assert failed >= bad


def test_a_sink_that_is_down_is_not_asked_for_every_turn(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    said(buffer, clock, 100)
    sink.is_down = True
    assert buffer.flush()["failed_count"] == 100
    assert sink.calls == 1


def test_without_a_thread_saving_flushes_what_is_due(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    start = threading.Thread.start

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as none:
        none.setattr(threading.Thread, "start", refuse)
        with pytest.warns(NoThreadWarning) as caught:
            flusher = Flusher(buffer, Schedule(100), clock=clock)
        assert len(caught) == 1
        said(buffer, clock, 3)
        assert not sink.turns
        clock.advance(100)
        said(buffer, clock, 1)
        assert len(sink.turns) == 4
        said(buffer, clock, 1)
        flusher.wake()
        assert len(sink.turns) == 5
    assert threading.Thread.start is start
    sink.stored.clear()
    said(buffer, clock, 1)  # starts the thread
    flusher.wake()
    assert sink.stored.wait(60)
    flusher.stop()
    said(buffer, clock, 1)
    assert len(sink.turns) == 6
    assert not any(thread.name == "amberdb-chat" for thread in threading.enumerate())


@pytest.mark.parametrize("woken", [False, True])
def test_the_flusher_ends_with_its_database(
    open_db: OpenDatabase, sink: Failing, clock: FakeClock, woken: bool
) -> None:
    db = open_db(clock=clock)
    schedule = Schedule(3600 if woken else 0.01)
    flusher = Flusher(ChatBuffer(db, sink, clock=clock), schedule, clock=clock)
    (thread,) = [each for each in threading.enumerate() if each.name == "amberdb-chat"]
    db.close()
    if woken:
        flusher.wake()
    thread.join(20)
    assert not thread.is_alive()


# -- a clock that is set back ----------------------------------------------------------------


@pytest.mark.parametrize("back_s", [3600, 40 * 86_400])
def test_turns_stay_in_the_order_in_which_they_were_saved(
    open_db: OpenDatabase, tmp_path: Path, clock: FakeClock, back_s: int
) -> None:
    db = open_db(clock=clock)
    archives: list[Sink] = [CollectionSink(db), JsonlSink(tmp_path / "c.jsonl")]
    buffer = ChatBuffer(db, archives[0], clock=clock)
    said(buffer, clock, 2)
    clock.advance(-back_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClockWarning)
        ChatBuffer(db, clock=clock).save_chat("third", "-", "c", "u")  # another one of the database
    buffer.save_chat("fourth", "-", "c", "u")
    wanted = ["q0", "q1", "third", "fourth"]

    def told(buffer: ChatBuffer, limit: int) -> list[str]:
        return [turn["user_message"] for turn in buffer.load_recent_context("c", limit)]

    assert told(buffer, 2) == wanted[2:]
    assert told(buffer, 10) == wanted
    assert buffer.flush()["flushed_count"] == 4, "also those that the clock has yet to reach"
    assert told(buffer, 10) == wanted
    turns = list(db.collection("chat").documents())
    archives[1].store(turns)
    for archive in archives:
        assert [turn["user_message"] for turn in archive.load("c", 3, None)] == wanted[:0:-1]
    assert all(turn["expires_at"].timestamp() <= clock.now + 172_800 for turn in turns)


def test_a_turn_of_a_clock_that_was_ahead_is_due(
    buffer: ChatBuffer, sink: Failing, clock: FakeClock
) -> None:
    clock.advance(40 * 86_400)
    buffer.db.collection("other")  # and no commit but the turn's
    sink.is_down = True
    (cid,) = said(buffer, clock, 1)
    clock.advance(-40 * 86_400)
    sink.is_down = False
    with pytest.warns(ClockWarning):
        assert buffer.flush_due()["flushed_count"] == 1
    assert cid in sink.turns


def test_after_a_restart_later_turns_are_later(
    open_db: OpenDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the earlier ones have left the hot tier."""
    db = open_db(clock=clock)
    sink = CollectionSink(db)
    for conversation, flushes in (("c", False), ("d", True)):
        said(ChatBuffer(db, sink, ttl_seconds=10, clock=clock), clock, 2, conversation)
        if flushes:
            ChatBuffer(db, sink, ttl_seconds=10, clock=clock).flush()
            clock.advance(20)
            db.expire()
            assert len(db["chat"]) == 0
        clock.advance(-3000)
        monkeypatch.setattr(positions, "_by_tier", {})  # as in another process
        buffer = ChatBuffer(db, sink, clock=clock)
        buffer.save_chat("third", "-", conversation, "u")
        assert buffer.load_recent_context(conversation, 1)[0]["user_message"] == "third"
