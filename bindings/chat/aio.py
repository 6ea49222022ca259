"""The chat buffer for an event loop: docs/aio.md."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, final

from amberdb import ClosedError
from amberdb._shared.clock import utc_now
from amberdb.aio.face import Face, iterates, reads, writes
from amberdb.aio.system import opens
from amberdb.chat import buffer
from amberdb.chat.schedule import FLUSH_FAILED, Schedule

logger = logging.getLogger("amberdb.chat")


@final
class ChatBuffer(Face):
    """The async face of amberdb.chat.ChatBuffer; from open_chat_buffer()."""

    @property
    def redis(self) -> "ChatBuffer":
        """The hot tier: the buffer itself."""
        return self

    save_chat = writes(buffer.ChatBuffer.save_chat)
    save_messages = writes(buffer.ChatBuffer.save_messages)
    load_recent_context = reads(buffer.ChatBuffer.load_recent_context)
    load_messages = reads(buffer.ChatBuffer.load_messages)
    search = reads(buffer.ChatBuffer.search)
    conversations = reads(buffer.ChatBuffer.conversations)
    export = iterates(buffer.ChatBuffer.export)
    delete_conversation = writes(buffer.ChatBuffer.delete_conversation)
    delete_user = writes(buffer.ChatBuffer.delete_user)
    flush = writes(buffer.ChatBuffer.flush)
    flush_redis_to_supabase = writes(buffer.ChatBuffer.flush_redis_to_supabase)
    flush_due = writes(buffer.ChatBuffer.flush_due)
    dead_letters = reads(buffer.ChatBuffer.dead_letters)
    retry_dead_letters = writes(buffer.ChatBuffer.retry_dead_letters)
    get_stats = reads(buffer.ChatBuffer.get_stats)


open_chat_buffer = opens(buffer.ChatBuffer, ChatBuffer)


async def keep_flushing(
    buffer: ChatBuffer,
    schedule: Schedule | None = None,
    *,
    batch_size: int = 200,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
) -> None:
    """Flushes at the times of the schedule, until its task is cancelled or the database is closed.
    A flush that fails is logged, and the next one follows at its time."""
    schedule = schedule or Schedule()
    while True:
        now = utc_now(clock)
        await sleep((schedule.next_after(now) - now).total_seconds())
        try:
            await buffer.flush_due(batch_size)
        except ClosedError:
            return
        except Exception:
            logger.exception(FLUSH_FAILED)
