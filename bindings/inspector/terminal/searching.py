"""Search: by words, or by the meaning of a document that is there, with the parts of each score."""

from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer, Header, Input, Static

from amberdb import Database
from amberdb.inspector import Found, search_documents
from amberdb.inspector.terminal.document import DocumentScreen
from amberdb.inspector.terminal.screen import DatabaseScreen
from amberdb.inspector.terminal.texts import escaped, marked, plain

_LIKE: Final = "like:"
"""What a question for documents like one of an id begins with."""


class SearchScreen(DatabaseScreen):
    """A search in one collection."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "ask", "Search"),
        ("l", "like", "Like this one"),
        ("n", "next", "Next page"),
    ]

    def __init__(self, db: Database, collection: str) -> None:
        super().__init__(db)
        self._collection = collection
        self._cursor: str | None = None
        self._question = ""

    def compose(self) -> ComposeResult:
        yield Header()
        yield Input(placeholder=f"words, or {_LIKE}ID for what means the same", id="words")
        yield Static("", id="says", markup=False)
        yield DataTable[object](cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        self.say(f"search in {escaped(self._collection)}")
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if event.value.strip():
            self._load(event.value.strip())

    @work(exclusive=True)
    async def _load(self, question: str, after: str | None = None) -> None:
        found = await self.read(lambda: self._read(question, after))
        if found is not None:
            self._question, self._cursor = question, found.cursor
            self._show(found)

    def _read(self, question: str, after: str | None) -> Found:
        if question.startswith(_LIKE):
            like = question.removeprefix(_LIKE)
            return search_documents(self.db, self._collection, like=like, after=after)
        return search_documents(self.db, self._collection, words=question, after=after)

    def _show(self, found: Found) -> None:
        table = self.query_one(DataTable[object])
        table.clear(columns=True)
        table.add_columns("score", "id", "text", "parts")
        for hit in found.hits:
            parts = "  ".join(
                f"{part.index} {'-' if part.score is None else format(part.score, '.3f')}"
                + (f" (rank {part.rank})" if part.rank is not None else "")
                for part in hit.parts
            )
            table.add_row(
                f"{hit.score:.4f}",
                plain(hit.id, "bold"),
                marked(hit.snippet),
                plain(parts, "dim"),
                key=hit.id,
            )
        count = f"{len(found.hits)} documents" if found.hits else "nothing found"
        more = "" if found.cursor is None else ", n: more"
        self.say(f"{escaped(self._question)}: {count}, {found.took_ms:.0f} ms{more}")
        if found.hits:
            table.focus()

    def action_ask(self) -> None:
        """Asks for other words."""
        self.query_one(Input).focus()

    def action_like(self) -> None:
        """Searches by the vector of the document under the cursor."""
        table = self.query_one(DataTable[object])
        if table.row_count:
            key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
            field = self.query_one(Input)
            field.value = f"{_LIKE}{key}"
            self._load(field.value)

    def action_next(self) -> None:
        """Shows the next page."""
        if self._cursor is None:
            self.notify("this is the last page")
        else:
            self._load(self._question, self._cursor)

    def action_back(self) -> None:
        """Leaves the input for the table, or the screen."""
        table = self.query_one(DataTable[object])
        if isinstance(self.focused, Input) and table.row_count:
            table.focus()
        else:
            super().action_back()

    @on(DataTable.RowSelected)
    def _open(self, event: DataTable.RowSelected) -> None:
        if event.row_key.value is not None:
            self.show(DocumentScreen(self.db, self._collection, event.row_key.value))
