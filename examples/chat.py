"""A chat buffer: turns are stored at once, flushed in batches, and read from both tiers."""

import amberdb
from amberdb.chat import ChatBuffer, CollectionSink, Flusher, Schedule

with amberdb.open("chat.amber") as db:
    buffer = ChatBuffer(db, CollectionSink(db))
    saved = buffer.save_chat(
        user_message="你好",
        assistant_message="您好！",
        conversation_id="conv_123",
        user_id="user_456",
    )
    print(saved["note"], saved["token_count"])
    buffer.save_chat("记住：会议改到三点", "好的", "conv_123", "user_456", important=True)
    print(buffer.get_stats())

    flushed = buffer.flush(batch_size=100)
    assert flushed["success"]
    print(flushed)

    with Flusher(buffer, Schedule(300, window="02:00-04:00")):
        buffer.save_chat("谢谢", "不客气", "conv_123", "user_456")
    for turn in buffer.load_recent_context("conv_123", limit=3):
        print(turn["user_message"], "/", turn["assistant_message"])
