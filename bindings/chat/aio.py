"""The chat buffer for an event loop: docs/aio.md."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, final

from amberdb import ClosedError
from amberdb._shared.clock import utc_now
from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.chat import buffer
from amberdb.chat.schedule import FLUSH_FAILED, Schedule

logger = logging.getLogger("amberdb.chat")


@final
class ChatBuffer(Face):
    """The async face of amberdb.chat.ChatBuffer; from open_chat_buffer()."""

    save_chat = writes(buffer.ChatBuffer.save_chat)
    flush = writes(buffer.ChatBuffer.flush)
    flush_due = writes(buffer.ChatBuffer.flush_due)
    load_recent_context = reads(buffer.ChatBuffer.load_recent_context)
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
