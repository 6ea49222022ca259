"""What all screens have: a table, a line for what it shows, and readings in threads.

Invariants:
- Of several readings of one screen the newest is shown; an error is a notification, and leaves
  what was shown.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Static

from amberdb import AmberError, Database
from amberdb.inspector.terminal.texts import escaped

T = TypeVar("T")


class DatabaseScreen(Screen[None]):
    """A screen that reads from a database."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "back", "Back")]

    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db

    async def read(self, reading: Callable[[], T]) -> T | None:
        """What a reading returns, from a thread; None when it has raised an error, which is
        shown."""
        try:
            return await asyncio.to_thread(reading)
        except AmberError as error:
            self.notify(escaped(error.message), severity="error", timeout=10, markup=False)
            return None

    def say(self, text: str) -> None:
        """Shows one line above the table."""
        self.query_one("#says", Static).update(text)

    def show(self, screen: "DatabaseScreen") -> None:
        """Shows another screen on top of this one."""
        self.app.push_screen(screen)  # pyright: ignore[reportUnknownMemberType]

    def action_back(self) -> None:
        """Leaves for the screen before."""
        self.app.pop_screen()  # pyright: ignore[reportUnknownMemberType]
