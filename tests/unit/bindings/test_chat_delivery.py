"""Dead letters, sinks that are down, and turns that are deleted while they are on their way."""

import threading
from collections.abc import Callable

import pytest

from amberdb import Database
from amberdb.chat import ChatBuffer, CollectionSink
from amberdb.chat.delivery import failures_max
from support.chat_sinks import FullSink, MinimalSink
from support.databases import FakeClock


@pytest.fixture
def sink() -> FullSink:
    return FullSink()


@pytest.fixture
def buffer(db: Database, sink: MinimalSink, clock: FakeClock) -> ChatBuffer:
    return ChatBuffer(db, sink, refusals_max=3, clock=clock)


def say(buffer: ChatBuffer, *words: str) -> list[str]:
    return [buffer.save_chat(each, "-", "c", "u")["cid"] for each in words]


@pytest.mark.parametrize("error", [None, ValueError("a letter too many"), OSError("HTTP 400")])
def test_a_turn_that_is_refused_again_and_again_is_set_aside(
    buffer: ChatBuffer, sink: FullSink, clock: FakeClock, error: Exception | None
) -> None:
    _, bad = say(buffer, "good", "bad")
    sink.refused = {"bad": error}
    for count in range(3):
        assert buffer.dead_letters() == []
        say(buffer, f"more {count}")
        assert buffer.flush()["failed_count"] == 1
        clock.advance(3600)
    (letter,) = buffer.dead_letters()
    assert (letter["id"], letter["attempts"], letter["refusals"]) == (bad, 3, 3)
    assert letter["error"] == (
        "not this one" if error is None else f"{type(error).__name__}: {error}"
    )
    stats = buffer.get_stats()
    assert (stats["pending_queue_length"], stats["dead_letter_count"]) == (0, 1)
    assert buffer.flush() == {
        "success": True,
        "total_pending": 0,
        "flushed_count": 0,
        "failed_count": 0,
    }
    clock.advance(86_400 * 400)
    buffer.db.expire()
    assert buffer.load_recent_context("c")[1]["user_message"] == "bad", "it is still a turn"
    assert buffer.retry_dead_letters()["failed_count"] == 1
    assert buffer.dead_letters()[0]["attempts"] == 4
    sink.refused = {}
    assert buffer.retry_dead_letters(["another"])["total_pending"] == 0
    assert buffer.retry_dead_letters([bad])["flushed_count"] == 1
    assert buffer.dead_letters() == []
    assert buffer.get_stats()["status"] == "active"
    clock.advance(200_000)
    buffer.db.expire()
    assert bad in sink.turns_by_id
    assert len(buffer.load_recent_context("c")) == 5


def test_a_turn_that_is_refused_alone_is_set_aside(buffer: ChatBuffer, sink: FullSink) -> None:
    say(buffer, "bad")
    for error in (None, ValueError("no"), None):
        sink.refused = {"bad": error}
        buffer.flush()
    assert len(buffer.dead_letters()) == 1


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), TimeoutError(), OSError("5xx"), RuntimeError("503")]
)
def test_a_sink_that_is_down_sets_nothing_aside(
    buffer: ChatBuffer, sink: FullSink, clock: FakeClock, error: Exception, count: int
) -> None:
    say(buffer, *map(str, range(count)))
    sink.error = error
    if count > 1 or isinstance(error, OSError):  # it reads, and writes nothing
        sink.load = lambda *_: []  # type: ignore[method-assign]
    for _ in range(12):
        assert buffer.flush(5)["failed_count"] == count
        clock.advance(3600)
        assert buffer.flush_due(5)["failed_count"] == count
    assert buffer.dead_letters() == []
    stats = buffer.get_stats()
    assert stats["status"] == "failing"
    if isinstance(error, ConnectionError | TimeoutError):
        assert stats["failed_queue_length"] == 0, "no turn is paused"
    sink.error = None
    assert buffer.flush(5)["flushed_count"] == count
    words = list(map(str, range(count)))
    assert sink.order == words or not isinstance(error, ConnectionError | TimeoutError)
    assert sorted(sink.order) == sorted(words)


def test_a_sink_that_goes_down_during_a_flush_has_refused_nothing(
    buffer: ChatBuffer, sink: FullSink
) -> None:
    def die() -> None:
        sink.error = RuntimeError("503")

    sink.before_return = die
    for count in range(5):
        sink.error = None
        bad = f"{count} bad"
        sink.refused[bad] = ValueError("no")  # so the batch is halved, and a part of it stored
        say(buffer, bad, *(f"{count} {number}" for number in range(20)))
        assert 0 < buffer.flush(100)["flushed_count"] < 20
        assert buffer.db["chat"].count({"refusals": {"$gt": 0}}) == 0


def test_a_sink_that_cannot_be_reached_is_called_once_by_a_flush(
    buffer: ChatBuffer, sink: FullSink
) -> None:
    say(buffer, *map(str, range(30)))
    sink.error = ConnectionError("no route")
    assert buffer.flush(10)["failed_count"] == 30
    assert sink.stores == 1
    sink.error = RuntimeError("?")
    buffer.flush(10)
    assert sink.stores == 1 + failures_max(10)


@pytest.mark.parametrize("batch_size", [7, 200, 1000])
def test_turns_that_the_sink_raises_for_hold_up_no_others_for_long(
    buffer: ChatBuffer, sink: FullSink, clock: FakeClock, batch_size: int
) -> None:
    """Also several at the head of the queue, and in batches of any size."""
    bad = {f"bad {number}" for number in range(4)}
    sink.refused = dict.fromkeys(bad, ValueError("no"))
    say(buffer, *sorted(bad), *map(str, range(300)))
    for _ in range(6):
        buffer.flush_due(batch_size)
        clock.advance(1)
    assert sink.order[:10] == [f"{number}" for number in range(10)]
    assert len(sink.order) == 300
    for _ in range(10):
        clock.advance(3600)
        say(buffer, "another")
        buffer.flush_due(batch_size)
    assert {turn["user_message"] for turn in buffer.dead_letters()} == bad


def test_an_error_of_an_earlier_batch_is_told(buffer: ChatBuffer, sink: FullSink) -> None:
    say(buffer, "bad", "good")
    sink.refused = {"bad": None}
    buffer.flush(1)
    assert buffer.get_stats()["last_error"] == "not this one"


def test_a_sink_may_return_nothing(buffer: ChatBuffer, sink: FullSink) -> None:
    sink.store = lambda turns: None  # type: ignore[assignment, method-assign, return-value]
    say(buffer, "one")
    assert buffer.flush()["flushed_count"] == 1


@pytest.mark.parametrize("important", [False, True])
@pytest.mark.parametrize("how", ["conversation", "user", "collections"])
def test_what_is_deleted_while_it_is_sent_is_nowhere(
    db: Database, buffer: ChatBuffer, sink: FullSink, how: str, important: bool
) -> None:
    def forget() -> object:
        """As a forget over all systems does, without the buffer."""
        return [db[name].delete_many({"user_id": "u"}) for name in ("chat", "chat_conversations")]

    deletes: dict[str, Callable[[], object]] = {
        "conversation": lambda: buffer.delete_conversation("c"),
        "user": lambda: buffer.delete_user("u"),
        "collections": forget,
    }

    def beside() -> None:
        thread = threading.Thread(target=deletes[how])
        thread.start()
        thread.join(60)
        assert not thread.is_alive()

    buffer.save_chat("of another one", "-", "d", "v")
    buffer.flush()
    sink.before_return = beside
    buffer.save_chat("one", "-", "c", "u", important=important)
    if not important:
        buffer.flush()
    assert [turn["user_message"] for turn in sink.turns_by_id.values()] == ["of another one"]
    assert buffer.load_recent_context("c") == []
    assert buffer.conversations("u") == []


@pytest.mark.parametrize("later_s", [0, 60])
def test_two_buffers_that_send_one_turn_count_it_once(
    db: Database, sink: FullSink, clock: FakeClock, later_s: int
) -> None:
    """And the one that is later takes nothing away that has expired meanwhile."""
    first, second = (ChatBuffer(db, sink, ttl_seconds=10, clock=clock) for _ in range(2))
    say(first, "one")

    def beside() -> None:
        sink.before_return = lambda: None
        second.flush()
        clock.advance(later_s)
        db.expire()

    sink.before_return = beside
    first.flush()
    assert db["chat"].count() == (0 if later_s else 1)
    assert len(sink.turns_by_id) == 1
    assert first.conversations("u")[0]["turns"] == 1


def test_flushing_marks_in_one_commit_with_the_records(db: Database, clock: FakeClock) -> None:
    buffer = ChatBuffer(db, CollectionSink(db), clock=clock)
    for user in ("u", "v"):
        buffer.save_chat("hi", "-", "c", user)
    lsn = db.stats().last_lsn
    buffer.flush()
    db.sync()
    changes = list(db.changes(lsn))
    collections = sorted(change.collection for change in changes)
    assert collections == sorted(2 * ["chat", "chat_archive", "chat_conversations"])
    marks = {change.lsn for change in changes if change.collection != "chat_archive"}
    assert len(marks) == 1
