"""Search of one Text index: the server finds the rows that have the words, BM25 of the engine ranks
them.

Invariants:
- The rows of the words and the sums of all rows are from one statement, so from one state.
- Scores and order are those of a directory to the last bit: frequencies, lengths and sums are exact
  numbers, and the engine's Corpus adds them up.
- Of the documents only those of the best rows are read, a block in one statement. In a transaction
  they are locked, and a row whose document another transaction has written meanwhile is none.
"""

from collections.abc import Iterable
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Found
from amberdb.engine.search.text_searcher import verification
from amberdb.engine.storage.view import View
from amberdb.index.text.bm25 import PREFIX_TERMS_MAX, Corpus, Verify
from amberdb.index.text.packing import Lengths, Postings, Rowids
from amberdb.index.text.query import Prefix, Term, TextQuery
from amberdb.index.text.text import UNIT
from amberdb.postgres.narrowing import condition_of
from amberdb.postgres.view import PostgresView, of_server

_ROW: Final = np.dtype([("rowid", ">i8"), ("units", ">i8")])
_POSTING: Final = np.dtype([("rowid", ">i8"), ("units", ">i8"), ("frequency", ">i4")])
_LAST: Final = "\U0010ffff"
"""Sorts after every character that a term has."""


@final
class TextSearcher:
    """Answers queries over one Text index."""

    def __init__(self, index: RowIndex) -> None:
        self._index = index

    def search(
        self,
        query: TextQuery,
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> Found:
        """The best `limit` rows of the view, best first. Raises QueryError."""
        server = of_server(view)
        rows = _Rows.of_query(server, schema, self._index, query)
        corpus = Corpus([rows], rows.alive, totals=rows.totals)
        verify = self._verify(rows, query, server, schema, candidates, reader)
        among = None if candidates.prefilter is None else rows.places(candidates.prefilter)
        (places, scores), highest = corpus.ranked(query, limit, among=among, verify=verify)
        rowids = rows.known[places].tolist()
        if verify is None:
            server.prefetch_rows(schema, rowids)
        how = {
            "kind": "text",
            "rows": corpus.count,
            "candidates": len(rows.known),
            "documents checked": verify is not None,
        }
        return Found(list(zip(rowids, scores.tolist(), strict=True)), how, highest)

    def _verify(
        self,
        rows: "_Rows",
        query: TextQuery,
        view: PostgresView,
        schema: Schema,
        candidates: Candidates,
        reader: RowReader,
    ) -> Verify | None:
        """A check of ranked rows by their documents; None when the postings decide."""
        check = verification(self._index, query, candidates, reader)
        if check is None and not view.locks:
            return None
        narrow = None
        if candidates.postfilter is not None:
            narrow = condition_of(candidates.filter)

        def verify(places: Rowids) -> NDArray[np.bool_]:
            rowids = rows.known[places]
            there = view.prefetch_rows(schema, rowids.tolist(), narrow)
            passed = np.isin(rowids, list(there))
            if check is not None:
                passed[passed] = check(rowids[passed])
            return passed

        return verify


@final
class _Rows:
    """The rows that have a term of a query; a SearchedSource, whose rowids are the places of the
    rows in `known`: those of a server are too large for masks."""

    def __init__(
        self, totals: tuple[int, float], expired: Rowids, packed: dict[str, bytes]
    ) -> None:
        self.totals = totals
        """The number of all rows, and the sum of their lengths."""
        found = np.frombuffer(b"".join(packed.values()), _POSTING)
        self.known: Rowids
        self.known, first, places = np.unique(
            found["rowid"].astype(np.int64), return_index=True, return_inverse=True
        )
        """The rowids of the server, ascending."""
        self.rowids: Rowids = np.arange(len(self.known))
        self.lengths: Lengths = (found["units"][first] / UNIT).astype(np.float32)
        self.alive = np.ones(len(self.known), np.bool_)
        if len(expired):
            self.alive = ~np.isin(self.known, expired)
        frequencies = found["frequency"].astype(np.float32) / np.float32(UNIT)
        self._terms = sorted(packed)
        self._postings: dict[str, Postings] = {}
        end = 0
        for term, rows in packed.items():
            start, end = end, end + len(rows) // _POSTING.itemsize
            if start < end:
                order = start + np.argsort(places[start:end])
                self._postings[term] = places[order], frequencies[order]

    @classmethod
    def of_query(
        cls, view: PostgresView, schema: Schema, index: RowIndex, query: TextQuery
    ) -> "_Rows":
        """The rows of the terms of a query."""
        asked = dict.fromkeys((*query.scored, *query.required, *query.excluded))
        starts = [term.start for term in asked if isinstance(term, Prefix)]
        (_, count, units, packed), *found = view.text_rows(
            schema,
            index,
            list(dict.fromkeys(_words(asked))),
            [(start, start + _LAST) for start in starts],
            PREFIX_TERMS_MAX + 1,
        )
        expired = np.frombuffer(packed or b"", _ROW)
        count = (count or 0) - len(expired)
        units = (units or 0) - int(expired["units"].sum())
        return cls(
            (count, units / UNIT),
            expired["rowid"].astype(np.int64),
            {term: rows or b"" for term, _, _, rows in found},
        )

    @property
    def table(self) -> object:
        return self

    def places(self, rowids: Rowids) -> Rowids:
        """Where those of the given rows are that are here."""
        return np.flatnonzero(np.isin(self.known, rowids))

    def postings(self, term: str) -> Postings | None:
        return self._postings.get(term)

    def terms(self, prefix: str, limit: int) -> list[str]:
        return [term for term in self._terms if term.startswith(prefix)][:limit]


def _words(terms: Iterable[Term]) -> Iterable[str]:
    for term in terms:
        yield from term.also if isinstance(term, Prefix) else (term,)
