"""One document: its JSON, its times, its vectors, and its history as far as the log holds it."""

from collections.abc import Iterator
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Header, Static

from amberdb import Database
from amberdb.inspector import (
    DocumentView,
    History,
    VectorSummary,
    Version,
    read_document,
    read_history,
)
from amberdb.inspector.terminal.screen import DatabaseScreen
from amberdb.inspector.terminal.texts import escaped, instant, plain

_BARS = " " + "".join(map(chr, range(0x2581, 0x2589)))
"""Blocks of one to eight eighths."""


class DocumentScreen(DatabaseScreen):
    """A stored document."""

    BINDINGS: ClassVar[list[BindingType]] = [("h", "history", "History"), ("r", "load", "Refresh")]

    def __init__(self, db: Database, collection: str, id: str) -> None:
        super().__init__(db)
        self._collection = collection
        self._document_id = id

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static("", id="says", markup=False)
        with VerticalScroll(id="body"):
            yield Static("", id="document", markup=False)
            yield Static("", id="history", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#body").focus()
        self.action_load()

    @work(exclusive=True)
    async def action_load(self) -> None:
        """Reads the document."""
        found = await self.read(
            lambda: [read_document(self.db, self._collection, self._document_id)]
        )
        if found is None:
            return
        (view,) = found
        if view is None:
            name = escaped(self._document_id)
            self.say(f"{name}: deleted or expired; h shows what the log still holds")
            self.query_one("#document", Static).update("")
        else:
            self._show(view)

    def _show(self, view: DocumentView) -> None:
        record = view.record
        facts = [
            f"{escaped(self._collection)} / {escaped(record.id)}",
            f"version {record.version}",
            f"created {instant(record.created_at)}",
            f"updated {instant(record.updated_at)}",
        ]
        if view.expires_at is not None:
            facts.append(f"expires {instant(view.expires_at)}")
        self.say("  ".join(facts))
        text = plain(view.text.text)
        if view.text.is_cut:
            text.append("\n(cut here: `amberdb get` prints it whole)", "italic")
        for vector in view.vectors:
            text.append("\n\n")
            text.append_text(_strip(vector))
        self.query_one("#document", Static).update(text)

    @work(exclusive=True)
    async def action_history(self) -> None:
        """Reads the versions that the log still holds."""
        history = await self.read(
            lambda: read_history(self.db, self._collection, self._document_id)
        )
        if history is not None:
            self.query_one("#history", Static).update(Text("\n").join(_lines(history)))


def _lines(history: History) -> Iterator[Text]:
    oldest = (
        "holds no commit" if history.oldest_lsn is None else f"begins at Lsn {history.oldest_lsn}"
    )
    end = "" if history.is_complete else f", read up to Lsn {history.read_to} in the time allowed"
    yield Text(f"\nHistory: the log {oldest}{end}", "bold")
    if not history.versions:
        yield Text("no version of this document", "dim")
    for version in history.versions:
        yield from _version_lines(version)
    if history.dropped:
        yield Text(f"{history.dropped} older versions are not shown", "dim")


def _version_lines(version: Version) -> Iterator[Text]:
    yield Text(f"{instant(version.time)}  {version.op}  Lsn {version.lsn}", "green")
    if version.differences is None and version.document is not None:
        yield Text("  the version before is not in the log", "dim")
    for each in version.differences or ():
        line = plain(f"  {each.path}: ", "bold")
        line.append(escaped(each.before), "red strike" if each.kind != "added" else "")
        line.append(" " if each.before and each.after else "")
        line.append(escaped(each.after), "green")
        yield line


def _strip(vector: VectorSummary) -> Text:
    """The vector as a line of bars, by the magnitude of its numbers, red where below zero."""
    several = f" x {vector.count}" if vector.count > 1 else ""
    text = plain(f"{vector.field}: {vector.dim} numbers{several}, norm {vector.norm:.3f}\n", "bold")
    for value in vector.strip:
        bar = _BARS[round(abs(value) * (len(_BARS) - 1))]
        text.append(bar, "red" if value < 0 else "cyan")
    return text
