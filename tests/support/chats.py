"""The chats of the users' document on a hot tier and a sink."""

from collections.abc import Mapping
from typing import Any

from amberdb import Database
from amberdb.chat import ChatBuffer, Flushed, Sink
from support.databases import FakeClock


def save(buffer: ChatBuffer, **more: Any) -> Mapping[str, Any]:
    return buffer.save_chat(
        user_message="你好",
        assistant_message="您好！",
        conversation_id="conv_123",
        user_id="user_456",
        **more,
    )


def chat_and_flush(db: Database, sink: Sink) -> None:
    """150 turns, which are hot at first, and then in the sink."""
    buffer = ChatBuffer(db, sink)
    result = save(buffer)
    assert result["success"]
    assert result["redis_stored"]
    assert not result["supabase_stored"]
    assert result["note"]
    for _ in range(149):
        save(buffer)
    assert buffer.redis.get_stats()["pending_queue_length"] == 150
    assert buffer.flush_redis_to_supabase(batch_size=100) == Flushed(
        success=True, total_pending=150, flushed_count=150, failed_count=0
    )
    assert len(sink.load("conv_123", 1_000, None)) == 150
    stats = buffer.get_stats()
    assert stats["status"] == "active"
    assert stats["pending_queue_length"] == 0
    assert stats["ttl_seconds"] == 172_800
    assert save(buffer, important=True)["sink_stored"]


def read_what_is_no_longer_hot(db: Database, sink: Sink, clock: FakeClock) -> None:
    """A turn after two days, by the clock of the database."""
    buffer = ChatBuffer(db, sink, clock=clock)
    save(buffer)
    buffer.flush()
    clock.advance(3 * 86_400)
    db.expire()
    assert buffer.get_stats()["pending_queue_length"] == 0
    (turn,) = buffer.load_recent_context("conv_123", limit=20)
    assert turn["assistant_message"] == "您好！"
