"""The store of conversations of Pydantic AI (ConversationStore), for the event loop.

Invariants:
- A record and the entries that are written with it are one commit. It is committed only if the
  stored record has the expected revision: nobody else writes between the comparison and the commit.
- A cancelled call has ended, or never began, when the task gets the CancelledError.
"""

from collections.abc import Sequence
from typing import final

from pydantic_ai.conversation_store import (
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)

from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.pydantic_ai.log import Log
from amberdb.integrations.threads import in_thread


@final
class AmberConversationStore(ConversationStore):
    """Conversations with their messages, each stored once.

        store = AmberConversationStore("memory.amber")
        conversation = await store.load("lin-1") or Conversation(conversation_id="lin-1")
        result = await agent.run("hello", conversation=conversation)
        await store.save(result)

    Raises OpenError, and CollectionError for collections that are another system's.
    """

    def __init__(self, db: DatabaseOrPath, *, name: str = "pydantic_ai") -> None:
        """`name` is the beginning of the names of the collections."""
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._log = Log(opened, name)

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record of a conversation; None for one that there is not."""
        return await in_thread("read", self._log.record, conversation_id)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """The records, or those of a scope, the newest first."""
        return await in_thread("read", self._log.records, scope, limit)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Stores a record with its new entries. Raises ConversationConflict when the stored record
        has another revision, or an entry is missing that they point at; then nothing is stored."""
        await in_thread("write", self._log.write, record, new_entries, expected_revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Deletes a record and the entries that no other record reaches. Raises
        ConversationConflict."""
        await in_thread("write", self._log.delete, conversation_id, expected_revision)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """An entry. Raises MissingKeyError."""
        return await in_thread("read", self._log.entry, entry_id)

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """The entries up to one, oldest first, as of one time; with a limit the last ones. Raises
        MissingKeyError."""
        return await in_thread("read", self._log.history, head_id, limit)
