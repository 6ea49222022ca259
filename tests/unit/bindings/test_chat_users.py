"""The conversations of a user: listed, searched, exported and deleted, in both tiers."""

import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from amberdb import AmberError, CollectionError, Database, Ordered, QueryError, TransactionError
from amberdb.chat import ChatBuffer, CollectionSink, JsonlSink, Sink
from support.chat_sinks import FullSink, MinimalSink
from support.databases import FakeClock, OpenDatabase

TTL_S = 100


class Kept:
    """A buffer with a sink of one kind; turns of two users in both tiers."""

    def __init__(self, db: Database, sink: Sink | None, clock: FakeClock) -> None:
        self.db, self.sink, self.clock = db, sink, clock
        self.buffer = ChatBuffer(db, sink, ttl_seconds=TTL_S, clock=clock)
        for conversation, user, words in (
            ("a", "lin", "the red umbrella"),
            ("b", "lin", "a blue bicycle"),
            ("shared", "lin", "umbrella of Lin"),
            ("shared", "mo", "umbrella of Mo"),
        ):
            self.buffer.save_chat(words, f"{words}?", conversation, user)
            clock.advance(1)
        self.buffer.flush()
        clock.advance(TTL_S + 1)
        db.expire()
        self.buffer.save_chat("a green umbrella", "-", "a", "lin")
        clock.advance(1)


@pytest.fixture(params=["none", "minimal", "full", "collection", "other", "jsonl"])
def kept(
    request: pytest.FixtureRequest, open_db: OpenDatabase, clock: FakeClock, tmp_path: Path
) -> Kept:
    db = open_db(clock=clock)
    sinks: dict[str, Any] = {
        "none": lambda: None,
        "minimal": MinimalSink,
        "full": FullSink,
        "collection": lambda: CollectionSink(db),
        "other": lambda: CollectionSink(open_db("other.amber", clock=clock)),
        "jsonl": lambda: JsonlSink(tmp_path / "turns.jsonl"),
    }
    return Kept(db, sinks[request.param](), clock)


def words(turns: Any) -> list[str]:
    return [turn["user_message"] for turn in turns]


def test_the_conversations_of_a_user(kept: Kept) -> None:
    found = kept.buffer.conversations("lin")
    names = [(each["conversation_id"], each["turns"]) for each in found]
    assert names == [("a", 2), ("shared", 1), ("b", 1)]
    assert (found[0]["last_at"] - found[0]["first_at"]).total_seconds() == TTL_S + 5
    assert [each["conversation_id"] for each in kept.buffer.conversations("lin", 1)] == ["a"]
    assert [each["turns"] for each in kept.buffer.conversations("mo")] == [1]
    assert kept.buffer.conversations("li") == []


def test_an_export_has_all_turns_of_both_tiers_once(kept: Kept) -> None:
    buffer = kept.buffer
    all_of_lin = ["the red umbrella", "a blue bicycle", "umbrella of Lin", "a green umbrella"]
    for _ in range(2):
        assert words(buffer.export(user_id="lin")) == all_of_lin
        assert words(buffer.export(conversation_id="a")) == [all_of_lin[0], all_of_lin[3]]
        assert words(buffer.export(conversation_id="shared", user_id="mo")) == ["umbrella of Mo"]
        assert len(list(buffer.export())) == 5
        buffer.flush()  # and then turns are in both


def test_search_finds_words_in_what_can_be_searched(kept: Kept) -> None:
    buffer = kept.buffer
    found = buffer.search("umbrella", user_id="lin")
    assert "a green umbrella" in words(found)
    assert found.is_complete
    if kept.sink is None or isinstance(kept.sink, CollectionSink):
        assert sorted(words(found)) == ["a green umbrella", "the red umbrella", "umbrella of Lin"]
        assert words(buffer.search("bicycle?")) == ["a blue bicycle"]
        assert len(buffer.search(query="umbrella -red", conversation_id="a")) == 1
        buffer.flush()
        assert len(buffer.search("umbrella", user_id="lin")) == 3, "one in both tiers is told once"
        assert len(buffer.search("umbrella", limit=2)) == 2
    with pytest.raises(QueryError):
        buffer.search()


def test_a_conversation_is_deleted_from_both_tiers(kept: Kept) -> None:
    buffer, sink = kept.buffer, kept.sink
    keeps = isinstance(sink, JsonlSink) or type(sink) is MinimalSink
    told = buffer.delete_conversation("a")
    hot = 2 if sink is None else 1
    stored = None if keeps else 2 - hot
    assert told == {"success": not keeps, "hot_deleted": hot, "sink_deleted": stored}
    assert words(buffer.export(conversation_id="a")) == (["the red umbrella"] if keeps else [])
    assert buffer.flush()["total_pending"] == (0 if sink else 3)
    assert [each["conversation_id"] for each in buffer.conversations("lin")] == ["shared", "b"]
    assert buffer.delete_conversation("nobody")["hot_deleted"] == 0
    if not keeps:
        assert buffer.load_recent_context("a") == []
        buffer.save_chat("anew", "-", "a", "lin")
        assert words(buffer.load_recent_context("a")) == ["anew"]


def test_a_user_is_deleted_from_shared_conversations(kept: Kept) -> None:
    buffer = kept.buffer
    told = buffer.delete_user("lin")
    assert told["hot_deleted"] + (told["sink_deleted"] or 0) == (4 if told["success"] else 1)
    assert buffer.conversations("lin") == []
    assert len(buffer.conversations("mo")) == 1
    if told["success"]:
        assert list(buffer.export(user_id="lin")) == []
        assert words(buffer.load_recent_context("shared")) == ["umbrella of Mo"]
    assert words(buffer.export(user_id="mo")) == ["umbrella of Mo"]


def test_deletion_within_a_transaction_is_one_commit_or_none(kept: Kept) -> None:
    buffer, db = kept.buffer, kept.db
    before = list(buffer.export())
    is_ours = isinstance(kept.sink, CollectionSink) and kept.sink.db is db
    can_join = not hasattr(kept.sink, "delete") or is_ours
    refused = False
    with suppress(ZeroDivisionError), db.transaction() as tx:
        try:
            buffer.delete_user("lin", tx=tx)
        except TransactionError:
            refused = True
        raise ZeroDivisionError
    assert refused is not can_join
    assert list(buffer.export()) == before
    if can_join:
        with db.transaction() as tx:
            buffer.delete_user("lin", tx=tx)
        assert db["chat"].count({"user_id": "lin"}) == 0
        assert buffer.conversations("lin") == []
    if is_ours:
        assert db["chat_archive"].count() == 1


def test_a_large_conversation_is_deleted_in_batches(db: Database, clock: FakeClock) -> None:
    buffer = ChatBuffer(db, CollectionSink(db), clock=clock)
    for number in range(1_200):
        buffer.save_chat(f"{number}", "-", "c", "u")
    buffer.flush(600)
    told = buffer.delete_conversation("c")
    assert told == {"success": True, "hot_deleted": 1_200, "sink_deleted": 1_200}


def test_a_sink_that_is_down_when_it_should_delete_says_so_and_is_asked_again(
    db: Database, clock: FakeClock
) -> None:
    sink = FullSink()
    buffer = ChatBuffer(db, sink, clock=clock)
    buffer.save_chat("one", "-", "c", "u", important=True)
    sink.error = ConnectionError("no route")
    with pytest.raises(ConnectionError):
        buffer.delete_user("u")
    sink.error = None
    assert buffer.delete_user("u")["sink_deleted"] == 1
    assert sink.turns_by_id == {}


def test_nobody_is_not_everybody(kept: Kept) -> None:
    """An id that a program has lost: None reads and deletes nothing of others."""
    buffer, nobody = kept.buffer, cast(Any, None)
    before = list(buffer.export())
    calls: list[Callable[[], object]] = [
        lambda: buffer.delete_user(nobody),
        lambda: buffer.delete_conversation(nobody),
        lambda: buffer.conversations(nobody),
        lambda: buffer.load_recent_context(nobody),
        lambda: buffer.save_chat("q", "a", nobody, "u"),
        lambda: buffer.save_chat("q", "a", "c", nobody),
    ]
    if isinstance(kept.sink, CollectionSink | JsonlSink):
        calls.append(lambda: kept.sink and kept.sink.load(nobody, 5, None))
    for call in calls:
        with pytest.raises(AmberError):
            call()
    assert buffer.delete_user("")["hot_deleted"] == 0
    assert list(buffer.export()) == before


def test_an_attribute_of_a_sink_is_no_method(db: Database) -> None:
    sink: Any = MinimalSink()
    sink.turns = sink.search = []
    sink.delete = True
    buffer = ChatBuffer(db, sink)
    buffer.save_chat("one", "-", "c", "u", important=True)
    assert words(buffer.export(user_id="u")) == words(buffer.search("one")) == ["one"]
    assert buffer.delete_user("u") == {"success": False, "hot_deleted": 1, "sink_deleted": None}


# -- ids and names -----------------------------------------------------------------------------

ALIKE = [
    "caf\u00e9",
    unicodedata.normalize("NFD", "caf\u00e9"),
    "CAF\u00c9",
    "caf\u00e9 ",
    " caf\u00e9",
    "caf\u00e9\n",
    "caf\u00e9\0",
    "../caf\u00e9",
    "\u5f20" * 300,
    "\u5f20" * 300 + ".",
    "\U0001f600",
]


@pytest.mark.parametrize("kind", ["collection", "jsonl", "minimal"])
def test_ids_that_look_alike_are_different(
    db: Database, clock: FakeClock, tmp_path: Path, kind: str
) -> None:
    sinks: dict[str, Sink] = {
        "collection": CollectionSink(db),
        "jsonl": JsonlSink(tmp_path / "turns.jsonl"),
        "minimal": MinimalSink(),
    }
    buffer = ChatBuffer(db, sinks[kind], ttl_seconds=TTL_S, clock=clock)
    for each in ALIKE:
        buffer.save_chat(f"of {each}", "-", each, each)
    for _ in range(2):
        for each in ALIKE:
            assert words(buffer.load_recent_context(each)) == [f"of {each}"]
            (conversation,) = buffer.conversations(each)
            assert conversation["conversation_id"] == conversation["user_id"] == each
            assert words(buffer.export(user_id=each)) == [f"of {each}"]
        buffer.flush()
        clock.advance(TTL_S + 1)
        db.expire()
    assert buffer.delete_conversation(ALIKE[0])["sink_deleted"] in (1, None)
    assert len(words(buffer.load_recent_context(ALIKE[1]))) == 1


def test_buffers_of_two_names_are_two(db: Database) -> None:
    one, shop = ChatBuffer(db), ChatBuffer(db, CollectionSink(db, "shop_archive"), name="shop")
    one.save_chat("one", "-", "c", "u")
    shop.save_chat("two", "-", "c", "u")
    assert words(one.load_recent_context("c")) == ["one"]
    shop.flush()
    assert words(shop.load_recent_context("c")) == ["two"]
    assert one.get_stats()["pending_queue_length"] == 1
    assert shop.delete_user("u")["success"]
    assert words(one.export()) == ["one"]


def test_a_collection_of_the_program_is_not_taken(db: Database) -> None:
    mine = db.collection("chat", indexes=[Ordered("room")])
    mine.put({"id": "a", "room": 1})
    with pytest.raises(CollectionError, match="name="):
        ChatBuffer(db)
    assert db.definition("chat").specs == [Ordered("room")]
    ChatBuffer(db, name="bot").save_chat("hi", "-", "c", "u")
    db.collection("chat_archive", indexes=[Ordered("room")])
    with pytest.raises(CollectionError, match="name="):
        CollectionSink(db)


def test_aliases_of_the_users_document(db: Database) -> None:
    memory_core = ChatBuffer(db, CollectionSink(db))
    saved = memory_core.save_chat("hi", "-", "c", "u")
    assert (saved["redis_stored"], saved["supabase_stored"]) == (True, False)
    assert memory_core.redis.get_stats()["pending_queue_length"] == 1
    assert memory_core.flush_redis_to_supabase(batch_size=100)["flushed_count"] == 1
    saved = memory_core.save_chat("hi", "-", "c", "u", important=True)
    assert (saved["sink_stored"], saved["supabase_stored"]) == (True, True)
