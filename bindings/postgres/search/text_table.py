"""The tables of one Text index, and the SQL that reads and writes them.

    t<keyspace>  rowid bigint       one row for each document that has text
                 units bigint       its length
                 terms text[]       the distinct terms, as the analyzer gives them; a GIN index
                 frequencies jsonb  by term, where it is not 1: of most terms it is
    w<keyspace>  term text          every term that a document has had, for prefixes: a term may be
                                    there twice, so that no writer waits for another one's word
    s<keyspace>  documents, units   sums of t<keyspace>, in parts: each change adds what it adds

Invariants:
- Lengths and frequencies are in 1/UNIT, as in a directory. An array holds any number of terms.
- One statement changes all three tables, and what it adds to the sums is counted by the server: so
  they are exact in every snapshot, and no row of them is one that writers share.
- Parts are folded into one by whoever finds many. Folders pass over the parts that another one has
  in hand, so two may fold at once.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, final

import msgspec

from amberdb._types import Document
from amberdb.engine.schema.search_index import RowIndex
from amberdb.index.text.text import FREQUENCY_MAX, UNIT
from amberdb.postgres.connections import Connection, execute

PARTS_MAX: Final = 64
"""Parts of the sums that are left as they are."""
_encode: Final = msgspec.json.Encoder().encode
_SEPARATOR: Final = "\n"
"""Between the terms of a row as a parameter; no term has white space."""


class TextRow(NamedTuple):
    """What is stored of one document."""

    rowid: int
    units: int
    frequencies: dict[str, int]


@final
class TextTable:
    """The tables of one Text index."""

    __slots__ = ("_extractor", "_name", "_sums", "_words", "changed", "folded", "prefix")

    def __init__(self, database: str, index: RowIndex) -> None:
        assert index.extractor is not None
        self.prefix = index.prefix
        self._extractor = index.extractor
        self._name = name = f'"{database}".t{index.number}'
        self._words = words = f'"{database}".w{index.number}'
        self._sums = sums = f'"{database}".s{index.number}'
        self.changed = (
            f"WITH gone AS (DELETE FROM {name} WHERE rowid = ANY(%s) RETURNING units), "
            f"new AS (INSERT INTO {name} SELECT r, u, string_to_array(t, E'\\n'), "
            "f::jsonb FROM unnest(%s::bigint[], %s::bigint[], %s::text[], "
            "%s::text[]) AS x (r, u, t, f) RETURNING units), "
            f"words AS (INSERT INTO {words} SELECT x FROM unnest(%s::text[]) AS x "
            f"WHERE NOT EXISTS (SELECT FROM {words} w WHERE w.term = x)), "
            "delta AS (SELECT 1 AS n, units FROM new UNION ALL SELECT -1, -units FROM gone) "
            f"INSERT INTO {sums} SELECT sum(n), sum(units) FROM delta HAVING count(*) > 0 "
            f"RETURNING (SELECT count(*) FROM {sums})"
        )
        self.folded = (
            f"WITH old AS (DELETE FROM {sums} WHERE ctid = ANY(ARRAY("
            f"SELECT ctid FROM {sums} FOR UPDATE SKIP LOCKED)) RETURNING documents, units) "
            f"INSERT INTO {sums} SELECT sum(documents), sum(units) FROM old HAVING count(*) > 0"
        )

    @property
    def names(self) -> tuple[str, str, str]:
        return self._name, self._words, self._sums

    def created(self) -> Iterator[str]:
        """The statements that create the tables, without the index of terms."""
        yield (
            f"CREATE TABLE {self._name} (rowid bigint PRIMARY KEY, units bigint NOT NULL, "
            'terms text[] COLLATE "C" NOT NULL, frequencies jsonb NOT NULL)'
        )
        yield f'CREATE TABLE {self._words} (term text COLLATE "C" NOT NULL)'
        yield f"CREATE INDEX ON {self._words} (term)"
        yield f"CREATE TABLE {self._sums} (documents bigint NOT NULL, units bigint NOT NULL)"

    def indexed(self) -> Iterator[str]:
        """The statement that creates the index of terms. Each search would read what waits to be
        put into it, so nothing waits."""
        yield f"CREATE INDEX ON {self._name} USING gin (terms) WITH (fastupdate = off)"

    def row(self, rowid: int, document: Document) -> TextRow | None:
        """What is stored of a document; None when it has no text."""
        if self._extractor.content(document) is None:
            return None
        frequencies: dict[str, int] = {}
        length = 0
        for units, length_units, terms in self._extractor.occurrences(document):
            for term in terms:
                frequencies[term] = min(frequencies.get(term, 0) + units, FREQUENCY_MAX)
            length += length_units * len(terms)
        exact = array("f", [length / UNIT])[0]  # as in a directory
        return TextRow(rowid, int(exact * UNIT), frequencies)

    def stored(self) -> str:
        """The statement that reads the rows of some rowids."""
        return (
            f"SELECT rowid, units, terms, frequencies::text FROM {self._name} WHERE rowid = ANY(%s)"
        )

    def of_stored(self, row: Sequence[Any]) -> TextRow:
        """From a row of that statement."""
        rowid, units, terms, text = row
        others = msgspec.json.decode(text)
        return TextRow(rowid, units, {term: others.get(term, UNIT) for term in terms})

    def totals(self) -> str:
        """The statement that reads the numbers of documents and units, counted and as sums."""
        return (
            f"SELECT n, u, documents, units FROM (SELECT count(*), coalesce(sum(units), 0)::bigint "
            f"FROM {self._name}) AS t (n, u), (SELECT coalesce(sum(documents), 0)::bigint, "
            f"coalesce(sum(units), 0)::bigint FROM {self._sums}) AS s (documents, units)"
        )

    def replace(
        self, connection: Connection, gone: Sequence[int], new: Iterable[tuple[int, Document]]
    ) -> None:
        """Removes the rows of some rowids, which need not be there, and adds documents."""
        self.change(connection, gone, filter(None, (self.row(*each) for each in new)))

    def change(self, connection: Connection, gone: Sequence[int], new: Iterable[TextRow]) -> None:
        """Removes the rows of some rowids, which need not be there, and adds others."""
        rows = list(new)
        if not gone and not rows:
            return
        terms = dict.fromkeys(term for row in rows for term in row.frequencies)
        values = [
            list(gone),
            [row.rowid for row in rows],
            [row.units for row in rows],
            [_SEPARATOR.join(row.frequencies) for row in rows],
            [_several(row.frequencies) for row in rows],
            list(terms),
        ]
        found = execute(connection, self.changed, values).fetchone()
        if found is not None and found[0] >= PARTS_MAX:
            execute(connection, self.folded)

    def search(self, *, expired: str | None, has_ranges: bool) -> str:
        """The statement that reads what a query of some terms, and of all terms in some ranges, is
        answered from: in the first row the sums of all documents, and the rows of the subquery
        `expired`; in the others a term with its rows.

        Rows are packed: they are as many as the documents with a common word. The terms are in a
        subquery of their own, which hides their number from the planner: it would plan anew for
        each search.
        """
        subquery = "NULL" if expired is None else f"({expired})"
        ranged = (
            " UNION SELECT found.term FROM unnest(%s::text[], %s::text[]) AS x (low, high), "
            f"LATERAL (SELECT DISTINCT w.term FROM {self._words} w "
            "WHERE w.term >= x.low AND w.term < x.high LIMIT %s) AS found"
        )
        return (
            f"SELECT NULL, sum(documents)::bigint, sum(units)::bigint, {subquery} "
            f"FROM {self._sums} UNION ALL SELECT q.term, NULL, NULL, (SELECT string_agg("
            "int8send(t.rowid) || int8send(t.units) || "
            f"int4send(coalesce((t.frequencies -> q.term)::int, {UNIT})), '') "
            f"FROM {self._name} t WHERE t.terms @> ARRAY[q.term]) FROM ("
            f"SELECT unnest((SELECT %s::text[])){ranged if has_ranges else ''}) AS q (term)"
        )

    def expired(self, documents: str, column: str) -> str:
        """The subquery that packs the rows whose documents have expired."""
        return (
            f"SELECT string_agg(int8send(t.rowid) || int8send(t.units), '') FROM {documents} d "
            f"JOIN {self._name} t ON t.rowid = d.rowid WHERE d.{column} < %s"
        )


def _several(frequencies: dict[str, int]) -> str:
    return _encode({term: units for term, units in frequencies.items() if units != UNIT}).decode()
