"""Transcripts of the Claude Agent SDK (SessionStore), for the event loop.

Invariants:
- A batch of entries is one commit, with the summary of its session.
- A cancelled call has ended, or never began, when the task gets the CancelledError.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import final

from claude_agent_sdk import SessionKey, SessionStore
from claude_agent_sdk.types import (
    SessionListSubkeysKey,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

from amberdb.integrations.claude_agent.transcripts import Transcripts
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread


@final
class AmberSessionStore(SessionStore):
    """The transcripts of all projects.

        store = AmberSessionStore("memory.amber")
        options = ClaudeAgentOptions(session_store=store)

    An entry with a uuid is stored once, however often it is appended. Raises OpenError, and
    CollectionError for collections that are another system's.
    """

    def __init__(
        self,
        db: DatabaseOrPath,
        *,
        name: str = "claude_agent",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`name` is the beginning of the names of the collections."""
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._transcripts = Transcripts(opened, name, clock)

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Adds entries at the end of a transcript, all or none, but for those that are there
        already. Raises InvalidDocumentError for a key with an empty part."""
        await in_thread("write", self._transcripts.append, key, entries)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """The entries in the order of their appends; None for a transcript that there is not."""
        return await in_thread("read", self._transcripts.load, key)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the times of their last appends."""
        return await in_thread("read", self._transcripts.sessions, project_key)

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """The summaries of the sessions of a project."""
        return await in_thread("read", self._transcripts.summaries, project_key)

    async def delete(self, key: SessionKey) -> None:
        """Deletes a transcript in one commit; a session with those of its subagents."""
        await in_thread("write", self._transcripts.delete, key)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths of a session, ascending by id."""
        return await in_thread("read", self._transcripts.subpaths, key)

    async def delete_idle(self, idle: timedelta) -> int:
        """Deletes sessions, of all projects, that nothing was appended to for a time; how many.
        Each is one commit. Raises ValueError for a negative time."""
        return await in_thread("write", self._transcripts.delete_idle, idle)
