"""A page of documents: filter, order, pages, and the plan that answers them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer, Header, Input, Static

from amberdb import Database, Where
from amberdb.inspector import DocumentsPage, parse_where, read_page
from amberdb.inspector.terminal.document import DocumentScreen
from amberdb.inspector.terminal.screen import DatabaseScreen
from amberdb.inspector.terminal.searching import SearchScreen
from amberdb.inspector.terminal.texts import escaped, plain


@final
@dataclass(frozen=True, slots=True)
class _Asked:
    """What the shown page is a page of."""

    where: str = ""
    order_by: str = ""
    cursors: tuple[str, ...] = ()
    """To this page and those before it: the first page has none."""


class DocumentsScreen(DatabaseScreen):
    """The documents of a collection."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "filter", "Filter"),
        ("o", "order", "Order"),
        ("n", "next", "Next page"),
        ("p", "previous", "Previous page"),
        ("s", "search", "Search"),
        ("r", "refresh", "Refresh"),
    ]

    def __init__(self, db: Database, collection: str) -> None:
        super().__init__(db)
        self._collection = collection
        self._asked = _Asked()
        self._next: str | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        yield Input(placeholder='filter, as {"field": value}', id="where")
        yield Input(placeholder="order, as -created_at, name", id="order")
        yield Static("", id="says", markup=False)
        yield DataTable[object](cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        for name in ("where", "order"):
            self.query_one(f"#{name}").display = False
        self._load(self._asked)

    @work(exclusive=True)
    async def _load(self, asked: _Asked) -> None:
        page = await self.read(lambda: self._read(asked))
        if page is not None:
            self._asked, self._next = asked, page.cursor
            self._show(page)

    def _read(self, asked: _Asked) -> DocumentsPage:
        where: Where | None = parse_where(asked.where)
        order_by = [name.strip() for name in asked.order_by.split(",") if name.strip()]
        after = asked.cursors[-1] if asked.cursors else None
        return read_page(self.db, self._collection, where=where, order_by=order_by, after=after)

    def _show(self, page: DocumentsPage) -> None:
        table = self.query_one(DataTable[object])
        table.clear(columns=True)
        table.add_columns("id", *map(plain, page.columns))
        for row in page.rows:
            cells = [plain(cell.text, _style_of(cell.kind)) for cell in row.cells]
            table.add_row(plain(row.id, "bold"), *cells, key=row.id)
        self.say("  ".join(self._facts(page)))
        table.focus()

    def _facts(self, page: DocumentsPage) -> Sequence[str]:
        """What is shown, and how it was found."""
        asked = self._asked
        first = len(asked.cursors) + 1
        facts = [f"{escaped(self._collection)}, page {first}"]
        if page.where:
            facts.append(f"where {escaped(page.where_text)}")
        if page.order_by:
            facts.append(f"order {escaped(', '.join(page.order_by))}")
        if not page.rows:
            facts.append("no document matches")
        plan = page.plan
        facts.append(f"index {plan.index or 'none'}" + (", sorts" * (plan.order == "sort")))
        if plan.is_full_scan:
            facts.append("reads every document: an index would answer it")
        return [*facts, f"{page.took_ms:.0f} ms", "(end)" if page.cursor is None else ""]

    def action_filter(self) -> None:
        """Asks for a filter."""
        self._ask("where")

    def action_order(self) -> None:
        """Asks for an order."""
        self._ask("order")

    def _ask(self, name: str) -> None:
        field = self.query_one(f"#{name}", Input)
        field.display = True
        field.focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        """Shows the first page of the new question."""
        where, order = (self.query_one(f"#{name}", Input).value for name in ("where", "order"))
        self._load(_Asked(where, order))

    def action_next(self) -> None:
        """Shows the next page."""
        if self._next is None:
            self.notify("this is the last page")
        else:
            self._load(replace(self._asked, cursors=(*self._asked.cursors, self._next)))

    def action_previous(self) -> None:
        """Shows the page before."""
        if self._asked.cursors:
            self._load(replace(self._asked, cursors=self._asked.cursors[:-1]))

    def action_refresh(self) -> None:
        """Reads the page again."""
        self._load(self._asked)

    def action_search(self) -> None:
        """Searches this collection."""
        self.show(SearchScreen(self.db, self._collection))

    def action_back(self) -> None:
        """Leaves an input for the table, or the screen."""
        if isinstance(self.focused, Input):
            self.query_one(DataTable[object]).focus()
        else:
            super().action_back()

    @on(DataTable.RowSelected)
    def _open(self, event: DataTable.RowSelected) -> None:
        if event.row_key.value is not None:
            self.show(DocumentScreen(self.db, self._collection, event.row_key.value))


def _style_of(kind: str) -> str:
    return {"number": "cyan", "bool": "magenta", "time": "green", "vector": "dim"}.get(kind, "")
