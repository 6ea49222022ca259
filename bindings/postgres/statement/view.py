"""A view for one statement, which reads in a transaction of its own and brings along what another
transaction begins with.

Invariants:
- The catalog and the marks by which the statement was made are those that there were when it ran.
  When they are not, or a second statement is needed, NotAtOnce is raised: the call is then done
  again in a transaction.
- Nothing that depends on the server is answered before the statement has run.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final, NoReturn, final

from amberdb._attempts import Overtaken
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.postgres.catalogue import Began, Catalogues, Known
from amberdb.postgres.connections import Connections, Rows
from amberdb.postgres.table import PLACE, Table
from amberdb.postgres.view import Pair, PostgresView

_BEGAN: Final = len(Began._fields)


class NotAtOnce(Exception):
    """A call needs a transaction."""


@final
class StatementView(PostgresView):
    """A view of the state that its statement sees."""

    __slots__ = ("_statement",)

    def __init__(
        self, connections: Connections, catalogues: Catalogues, *, takes_lsn: bool
    ) -> None:
        # Not that of PostgresView: it has no connection of its own.
        self._statement = _Statement(connections, catalogues, takes_lsn=takes_lsn)
        self._go_by(catalogues.known, connections)

    def close(self) -> None:
        """Does nothing: the statement has ended its transaction."""

    @property
    def has_read(self) -> bool:
        """Whether the statement has run, for this view or one that was narrowed."""
        return self._statement.began is not None

    @property
    def now_us(self) -> int:  # type: ignore[override]
        return self._began.now_us

    @property
    def lsn(self) -> int:  # type: ignore[override]
        return self._began.lsn

    def scan(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[Pair]:
        """Raises NotAtOnce for documents that have vectors, which are read after them."""
        place = self.catalogue.places.get(low[:KEYSPACE_BYTES])
        if place is not None and place[0].vectors:
            raise NotAtOnce
        return super().scan(low, high, reverse)

    def keys(self, low: bytes, high: bytes, limit: int) -> NoReturn:
        """Raises NotAtOnce: another read follows one of keys."""
        raise NotAtOnce

    # -- inside ------------------------------------------------------------------------------

    @property
    def _began(self) -> Began:
        if self._statement.began is None:
            raise NotAtOnce
        return self._statement.began

    def _alike(self) -> PostgresView:
        view = StatementView.__new__(StatementView)
        view._statement = self._statement
        view._go_by(self._known, self._connections)
        return view

    def _read_rows(self, table: Table, keys: list[bytes]) -> Rows:
        """Raises NotAtOnce for documents that have vectors, which are read after them."""
        if table.vectors:
            raise NotAtOnce
        return super()._read_rows(table, keys)

    def _rows(self, sql: str, values: list[Any]) -> Rows:
        return self._statement.rows(sql, values, self._known)

    def _ordered(self, rows: Rows, reverse: bool) -> Rows:
        rows.sort(key=itemgetter(PLACE), reverse=reverse)  # a join promises no order
        return rows


@final
class _Statement:
    """The statement, of a view and those that were narrowed."""

    def __init__(
        self, connections: Connections, catalogues: Catalogues, *, takes_lsn: bool
    ) -> None:
        self.began: Began | None = None
        self._connections = connections
        self._catalogues = catalogues
        self._state = catalogues.next_state if takes_lsn else catalogues.state

    def rows(self, sql: str, values: list[Any], known: Known) -> Rows:
        """The rows of the one statement. Raises NotAtOnce."""
        if self.began is not None:
            raise NotAtOnce
        # LEFT JOIN: there is a row with the state where there is no other.
        statement = f"SELECT s.*, b.* FROM ({self._state}) b LEFT JOIN ({sql}) s ON true"
        try:
            rows = self._connections.read(statement, values)
        except Overtaken:
            raise NotAtOnce from None
        began = self._catalogues.began(rows[0][-_BEGAN:])
        if began.version != known.catalogue.version or began.marks != len(known.marks):
            raise NotAtOnce
        self.began = began
        return rows if rows[0][0] is not None else []
