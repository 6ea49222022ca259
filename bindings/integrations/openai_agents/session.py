"""A session of the OpenAI Agents SDK (Session), kept by amberdb.integrations.item_lists.

Invariants:
- The items of one call of add_items() are one commit, and stand side by side.
- A cancelled call has ended, committed or rejected, or never began, when the task gets the
  CancelledError.
"""

from collections.abc import Mapping
from typing import Any, final

from agents.items import TResponseInputItem
from agents.memory import SessionSettings

from amberdb._shared.checks import check_name
from amberdb.integrations.item_lists import ItemLists
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread


@final
class AmberSession:
    """The items of one conversation.

        session = AmberSession("lin-1", "memory.amber")
        await Runner.run(agent, "hello", session=session)

    session_settings  SessionSettings(limit=50), or a map of the same: what get_items() returns
                      without a limit of its own

    Any number of sessions may have one database. Raises OpenError, InvalidDocumentError for an
    empty session_id, TypeError for settings that there are not, and CollectionError for a
    collection that is another system's.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        db: DatabaseOrPath,
        *,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        name: str = "openai_agents_items",
    ) -> None:
        check_name("session_id", session_id)
        self.session_id = session_id
        self.session_settings = _settings(session_settings)
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._lists = ItemLists(opened, name, owner="openai_agents")

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first; with a limit the newest ones, none of them for 0."""
        if limit is None:
            limit = _settings(self.session_settings).limit
        return await in_thread("read", self._lists.items, self.session_id, limit)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Adds items at the end, all or none. Raises TypeError for what is no JSON."""
        await in_thread("write", self._lists.append, self.session_id, items)

    async def pop_item(self) -> TResponseInputItem | None:
        """Removes the newest item and returns it; None when there is none."""
        return await in_thread("write", self._lists.pop, self.session_id)

    async def clear_session(self) -> None:
        """Removes all items of the session."""
        await in_thread("write", self._lists.clear, self.session_id)


def _settings(given: SessionSettings | Mapping[str, Any] | None) -> SessionSettings:
    if isinstance(given, SessionSettings):
        return given
    return SessionSettings().resolve(None if given is None else dict(given))
