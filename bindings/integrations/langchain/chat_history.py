"""The messages of a conversation (BaseChatMessageHistory), kept by amberdb.integrations.item_lists.

Invariants:
- A list of messages is added in one commit.
- The order is that of the calls, from several threads and objects too.
"""

from collections.abc import Sequence
from typing import final

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict

from amberdb._shared.checks import check_name
from amberdb.integrations.item_lists import ItemLists
from amberdb.integrations.langchain.documents import OWNER
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread, twin


@final
class AmberChatMessageHistory(BaseChatMessageHistory):
    """The messages of one conversation.

        history = AmberChatMessageHistory("lin-1", "memory.amber")
        history.add_messages([HumanMessage("hello"), AIMessage("hello!")])
        history.messages

    limit  `messages` has the newest so many; None: all

    Raises OpenError, InvalidDocumentError for an empty session_id, and CollectionError for a
    collection that is another system's.
    """

    def __init__(
        self,
        session_id: str,
        db: DatabaseOrPath,
        *,
        limit: int | None = None,
        name: str = "langchain_messages",
    ) -> None:
        check_name("session_id", session_id)
        self.session_id = session_id
        self._limit = limit
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._lists = ItemLists(opened, name, owner=OWNER)

    def close(self) -> None:
        """Closes the database if it was given as a path."""
        self._opened.close()

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # as LangChain's own ones do
        """The messages, oldest first."""
        return messages_from_dict(self._lists.items(self.session_id, self._limit))

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Adds messages at the end, all or none."""
        self._lists.append(self.session_id, [message_to_dict(message) for message in messages])

    def clear(self) -> None:
        """Removes all messages of the conversation."""
        self._lists.clear(self.session_id)

    async def aget_messages(self) -> list[BaseMessage]:
        """As `messages`."""
        return await in_thread("read", lambda: self.messages)

    aadd_messages = twin("write", add_messages)
    aclear = twin("write", clear)
