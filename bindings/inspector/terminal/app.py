"""The application: the collections of a database, and the way to everything else."""

from collections.abc import Sequence
from typing import ClassVar, Final

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.theme import Theme
from textual.widgets import DataTable, Footer, Header, Static

from amberdb import Database
from amberdb.inspector import CollectionSummary, IndexSummary, read_collections
from amberdb.inspector.terminal.documents import DocumentsScreen
from amberdb.inspector.terminal.screen import DatabaseScreen
from amberdb.inspector.terminal.searching import SearchScreen
from amberdb.inspector.terminal.texts import escaped, number, plain, size

_STYLE: Final = """
#says { padding: 0 1; height: auto; color: $text-muted; }
DataTable { height: 1fr; }
Input { height: 3; }
#body { height: 1fr; padding: 0 1; }
"""

_DARK: Final = Theme("amber-dark", primary="#b45309", accent="#f59e0b", dark=True)
_LIGHT: Final = Theme("amber-light", primary="#d97706", accent="#b45309", dark=False)


class CollectionsScreen(DatabaseScreen):
    """All collections with their counts, sizes and indexes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("s", "search", "Search"),
        ("r", "load", "Refresh"),
        Binding("escape", "back", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static("", id="says", markup=False)
        yield DataTable[object](cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(DataTable[object]).add_columns("collection", "documents", "size", "indexes")
        self.action_load()

    @work(exclusive=True)
    async def action_load(self) -> None:
        """Reads the collections."""
        found = await self.read(lambda: read_collections(self.db))
        if found is not None:
            self._show(found)

    def _show(self, collections: Sequence[CollectionSummary]) -> None:
        table = self.query_one(DataTable[object])
        table.clear()
        for each in collections:
            indexes = "  ".join(map(_words_of, each.indexes))
            table.add_row(
                plain(each.name, "bold"),
                number(each.documents),
                size(each.size_bytes),
                plain(indexes, "dim"),
                key=each.name,
            )
        self.say(
            f"{len(collections)} collections in {escaped(self.db.path)}"
            if collections
            else f"{escaped(self.db.path)} has no collections yet"
        )
        table.focus()

    @on(DataTable.RowSelected)
    def _open(self, event: DataTable.RowSelected) -> None:
        if event.row_key.value is not None:
            self.show(DocumentsScreen(self.db, event.row_key.value))

    def action_search(self) -> None:
        """Searches the collection under the cursor."""
        table = self.query_one(DataTable[object])
        if table.row_count:
            key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
            self.show(SearchScreen(self.db, str(key)))

    def action_back(self) -> None:
        """Stays: this is the first screen."""


class Browser(App[None]):
    """`amberdb browse`. The database stays open when it ends."""

    TITLE = "AmberDB"
    CSS = _STYLE
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        Binding("question_mark", "help", "Keys", key_display="?"),
        Binding("ctrl+t", "theme", "Dark or light", show=False),
    ]

    def __init__(self, db: Database) -> None:
        super().__init__()
        self._db = db
        self.sub_title = escaped(db.path)

    def on_mount(self) -> None:
        for theme in (_DARK, _LIGHT):
            self.register_theme(theme)
        self.theme = _DARK.name
        self.push_screen(CollectionsScreen(self._db))

    def action_help(self) -> None:
        """Shows the keys of the screen, or hides them."""
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def action_theme(self) -> None:
        """Changes between dark and light."""
        self.theme = _LIGHT.name if self.theme == _DARK.name else _DARK.name


def _words_of(index: IndexSummary) -> str:
    state = "" if index.state == "ready" else f" [{index.state}]"
    return f"{index.kind}({', '.join(index.fields)}){state}"
