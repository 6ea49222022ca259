"""BM25 over the sources of one text index in one view.

    score(row) = sum over the query's terms of  idf * tf * (K1 + 1) / (tf + K1 * norm)

    idf   = ln(1 + (N - df + 0.5) / (df + 0.5))
    norm  = 1 - B + B * length / mean length
    tf    frequency of the term in the row: occurrences times the weight of their field
    N, mean length    rows with text, and the mean of their lengths in (weighted) terms
    df    rows that have the term; a prefix counts as one term, however many words it matches

Invariants:
- N, df and the mean are counted over all rows that are alive in the view, also those outside
  `among`. Lengths and frequencies are multiples of 1/64, so their sums are exact, and terms are
  added in the query's order: the same rows have the same scores, to the last bit, however they are
  spread over sources.
- Order: higher scores first, then the newer row.
- A row matches when it has a scored term, all required terms and no excluded term.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import log
from types import MappingProxyType
from typing import Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb._errors import QueryError
from amberdb.index.text.packing import (
    FewPostings,
    Frequencies,
    Lengths,
    Ordinals,
    Postings,
    Rowids,
    arrays,
)
from amberdb.index.text.postings import Alive, SearchedSource, is_alive
from amberdb.index.text.query import Prefix, Term, TextQuery

# Of the two common pairs (the other is 1.2, 0.75) the one with less weight for length: documents
# here are short, and then length says little about relevance. bench/quality.py measures both.
K1: Final = 0.9
B: Final = 0.4
PREFIX_TERMS_MAX: Final = 10_000
_SPARSE: Final = 64
"""With fewer than one posting per this many rows, only rows that occur have a score."""
_FEW: Final = 200
"""Up to this many postings are scored one by one."""
_COLUMNS: Final = 512
_LEAST: Final = 5e-324  # above 0

Scores: TypeAlias = NDArray[np.float64]
Ranking: TypeAlias = tuple[Rowids, Scores]
"""Rowids and scores, best first."""
Verify: TypeAlias = Callable[[Rowids], NDArray[np.bool_]]
_PostingsByTerm: TypeAlias = dict[Term, Postings]
_FewByTerm: TypeAlias = dict[Term, Postings | FewPostings]


@final
@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one source that a view can know: those below the end of its mask."""

    rowids: Rowids
    lengths: Lengths
    alive: Alive | None = None
    """By ordinal; None when all are alive."""
    count: int = 0
    """Of the rows that are alive."""
    length: float = 0.0
    """Their sum."""

    def grown(self, source: SearchedSource, alive: Alive) -> "_Part":
        """With the rows that the source has since, and the view knows."""
        rowids = source.rowids
        start = len(self.rowids)
        end = start + int(np.searchsorted(rowids[start:], len(alive)))
        if end == start:
            return self
        lengths = source.lengths
        mask = _alive(rowids[start:end], alive)
        count = int(np.count_nonzero(mask))
        every = count == end - start
        fresh = lengths[start:end] if every else lengths[start:end][mask]
        length = self.length + float(fresh.sum(dtype=np.float64))
        if every and self.alive is None:
            return _Part(rowids[:end], lengths[:end], None, self.count + count, length)
        known = np.ones(start, np.bool_) if self.alive is None else self.alive
        whole = np.concatenate([known, mask])
        return _Part(rowids[:end], lengths[:end], whole, self.count + count, length)

    def without(self, removed: Rowids) -> "_Part":
        """With these rows dead, of which it may hold some."""
        places = np.searchsorted(self.rowids, removed)
        inside = places < len(self.rowids)
        places = places[inside]
        places = places[self.rowids[places] == removed[inside]]
        if not len(places):
            return self
        alive = np.ones(len(self.rowids), np.bool_) if self.alive is None else self.alive.copy()
        places = places[alive[places]]
        alive[places] = False
        length = self.length - float(self.lengths[places].sum(dtype=np.float64))
        return _Part(self.rowids, self.lengths, alive, self.count - len(places), length)


@final
class Corpus:
    """The sources of a text index in one view, with the statistics of BM25 over all rows.

    The constructor reads the rows of all sources. A corpus serves any number of searches in its
    view; after() carries it over to later views, and reads the rows that differ alone. Sums of
    lengths are exact, so a corpus that was carried over equals one that is made anew.
    """

    __slots__ = ("_alive", "_parts", "_sources", "count", "length_mean")

    count: int
    """The number of rows that are alive."""
    length_mean: float

    def __init__(
        self,
        sources: Sequence[SearchedSource],
        alive: Alive,
        known: Mapping[object, _Part] = MappingProxyType({}),
        totals: tuple[int, float] | None = None,
    ) -> None:
        """`known` are parts by the tables of their sources. `totals`: the number of all rows that
        are alive and the sum of their lengths, where the sources have only the rows of a query's
        terms."""
        self._sources = sources
        self._alive = alive
        self._parts = [known.get(source.table, _NO_ROWS).grown(source, alive) for source in sources]
        if totals is None:
            count = sum(part.count for part in self._parts)
            totals = count, sum(part.length for part in self._parts)
        self.count, length = totals
        self.length_mean = length / self.count if self.count else 0.0

    @property
    def _by_length(self) -> float:
        """What a norm grows by with each word; without words at all, rows have stop words only."""
        return K1 * B / self.length_mean if self.length_mean else 0.0

    def after(
        self, sources: Sequence[SearchedSource], alive: Alive, removed: Sequence[int]
    ) -> "Corpus":
        """The corpus of a later view. Its mask is that of this one without the removed rows, and
        with others behind the end."""
        tables = [source.table for source in self._sources]
        if alive is self._alive and tables == [source.table for source in sources]:
            other = Corpus.__new__(Corpus)  # copy() is slower than most searches
            other._sources = sources
            other._alive, other._parts = self._alive, self._parts
            other.count, other.length_mean = self.count, self.length_mean
            return other
        parts = self._parts
        if removed:
            gone = np.array(removed, np.int64)
            parts = [part.without(gone) for part in parts]
        return Corpus(sources, alive, dict(zip(tables, parts, strict=True)))

    def search(
        self,
        query: TextQuery,
        limit: int,
        *,
        among: Rowids | None = None,
        verify: Verify | None = None,
    ) -> Ranking:
        """ranked() without the highest score."""
        return self.ranked(query, limit, among=among, verify=verify)[0]

    def ranked(
        self,
        query: TextQuery,
        limit: int,
        *,
        among: Rowids | None = None,
        verify: Verify | None = None,
    ) -> tuple[Ranking, float]:
        """The best `limit` rows that match, and the score that no row can exceed: of a row with
        nothing but the query's terms, each without end.

        among    only these rows match; scores do not change
        verify   verify(rowids) returns which of them contain the phrases. Called in the order of
                 scores until `limit` rows pass. Required when query.needs_text.

        Raises QueryError for prefixes of too many words.
        """
        terms = dict.fromkeys((*query.scored, *query.required, *query.excluded))
        pairs = zip(self._sources, self._parts, strict=True)
        held = [_held(source, part, terms) if part.count else {} for source, part in pairs]
        weights: dict[Term, float] = {}
        highest = 0.0
        for term in query.scored:
            df = sum(len(found[term][0]) for found in held if term in found)
            weights[term] = log(1 + (self.count - df + 0.5) / (df + 0.5))
            if df:
                highest += weights[term] * (K1 + 1)
        wanted: Alive | None = None
        if among is not None:
            wanted = np.zeros(len(self._alive), np.bool_)
            wanted[among[among < len(wanted)]] = True
        count = sum(len(has[0]) for found in held for has in found.values())
        if count <= _FEW and verify is None and not query.required and not query.excluded:
            return self._rank_few(held, query, weights, wanted, limit), highest
        as_arrays = [{term: arrays(postings) for term, postings in found.items()} for found in held]
        rankings: list[Ranking] = []
        for part, found in zip(self._parts, as_arrays, strict=True):
            if found:
                ranking = self._rank(part, found, query, weights, wanted)
                if len(ranking[0]) == len(part.rowids):  # zeros, mostly
                    ranking = best(*ranking, limit if verify is None else len(part.rowids))
                rankings.append(ranking)
        if len(rankings) == 1:
            rowids, scores = rankings[0]
        elif rankings:
            rowids = np.concatenate([ranking[0] for ranking in rankings])
            scores = np.concatenate([ranking[1] for ranking in rankings])
        else:
            rowids, scores = np.empty(0, np.int64), np.empty(0, np.float64)
        if verify is None:
            return best(rowids, scores, limit), highest
        return _verified(*best(rowids, scores, len(rowids)), limit, verify), highest

    def _rank(
        self,
        part: _Part,
        found: _PostingsByTerm,
        query: TextQuery,
        weights: Mapping[Term, float],
        among: Alive | None,
    ) -> Ranking:
        """Rows of one source and their scores, unordered; 0 for rows that do not match."""
        scored = [found[term] for term in query.scored if term in found]
        values = [
            self._term_scores(part, *found[term], weights[term])
            for term in query.scored
            if term in found
        ]
        allowed = _allowed(part, found, query, among)
        size = len(part.rowids)
        if len(values) > 1 and sum(map(len, values)) * _SPARSE > size:
            scores = np.zeros(size)
            for (ordinals, _), value in zip(scored, values, strict=True):
                scores[ordinals] += value
            return part.rowids, scores if allowed is None else scores * allowed
        if not scored:
            return part.rowids[:0], np.empty(0)
        ordinals, sums = _summed([ordinals for ordinals, _ in scored], values)
        if allowed is not None:
            kept = allowed[ordinals]
            ordinals, sums = ordinals[kept], sums[kept]
        return part.rowids[ordinals], sums

    def _rank_few(
        self,
        held: Sequence[_FewByTerm],
        query: TextQuery,
        weights: Mapping[Term, float],
        among: Alive | None,
        limit: int,
    ) -> Ranking:
        """The ranking over all sources for few postings: without numpy, whose calls would cost
        more. The steps of each number are those of _rank(), so scores are equal to the last bit."""
        by_length = self._by_length
        sums: dict[int, float] = {}
        for part, found in zip(self._parts, held, strict=True):
            for term in query.scored:
                if term in found:
                    idf = weights[term] * (K1 + 1)
                    for rowid, length, tf in _rows(part, *found[term]):
                        norm = length * by_length + K1 * (1 - B) + tf
                        sums[rowid] = sums.get(rowid, 0.0) + tf * idf / norm
        if among is not None:
            sums = {rowid: score for rowid, score in sums.items() if among[rowid]}
        ranked = sorted(((score, rowid) for rowid, score in sums.items()), reverse=True)[:limit]
        rowids, scores = [rowid for _, rowid in ranked], [score for score, _ in ranked]
        return np.array(rowids, np.int64), np.array(scores, np.float64)

    def _term_scores(
        self, part: _Part, ordinals: Ordinals, frequencies: Frequencies, idf: float
    ) -> Scores:
        """The part of the score that one term adds to each row that has it."""
        norms = part.lengths[ordinals].astype(np.float64)
        norms *= self._by_length
        norms += K1 * (1 - B)
        norms += frequencies
        values: Scores = frequencies * np.float64(idf * (K1 + 1))
        values /= norms
        return values


_NO_ROWS: Final = _Part(np.empty(0, np.int64), np.empty(0, np.float32))


def _alive(rowids: Rowids, alive: Alive) -> Alive:
    """is_alive(), as a slice when rowids have no gaps, as usual."""
    first, last = int(rowids[0]), int(rowids[-1])
    if last - first == len(rowids) - 1 and last < len(alive):
        return alive[first : last + 1]
    return is_alive(rowids, alive)


def _rows(
    part: _Part, ordinals: Ordinals | list[int], frequencies: Frequencies | list[float]
) -> Iterable[tuple[int, float, float]]:
    """Rowid, length and frequency of each posting."""
    if isinstance(ordinals, list):
        find_rowid, find_length = part.rowids.item, part.lengths.item
        return zip(map(find_rowid, ordinals), map(find_length, ordinals), frequencies, strict=True)
    assert not isinstance(frequencies, list)
    rowids, lengths = part.rowids[ordinals].tolist(), part.lengths[ordinals].tolist()
    return zip(rowids, lengths, frequencies.tolist(), strict=True)


def _held(source: SearchedSource, part: _Part, terms: Iterable[Term]) -> _FewByTerm:
    """The postings of the terms that a row has which is alive. Raises QueryError."""
    held: _FewByTerm = {}
    left = PREFIX_TERMS_MAX  # for all prefixes: each of them may match every word
    for term in terms:
        if isinstance(term, Prefix):
            words = source.terms(term.start, left + 1)
            left -= len(words)
            if left < 0:
                raise QueryError(
                    f"more than {PREFIX_TERMS_MAX:,} words begin with the prefixes of the query, "
                    f"of which {term.start!r} is one: use longer prefixes"
                )
            found: Postings | FewPostings | None = _added_up(source, (*words, *term.also))
        else:
            found = source.postings(term)
        if found is not None and (alive := _in_view(part, *found)) is not None:
            held[term] = alive
    return held


def _in_view(
    part: _Part, ordinals: Ordinals | list[int], frequencies: Frequencies | list[float]
) -> Postings | FewPostings | None:
    """The postings of rows that are alive; None when no row is."""
    size = len(part.rowids)
    if isinstance(ordinals, list):
        assert isinstance(frequencies, list)
        if part.alive is None and ordinals[-1] < size:
            return ordinals, frequencies
        lives = [
            ordinal < size and (part.alive is None or bool(part.alive[ordinal]))
            for ordinal in ordinals
        ]
        ordinals = list(compress(ordinals, lives))
        return (ordinals, list(compress(frequencies, lives))) if ordinals else None
    assert not isinstance(frequencies, list)
    if ordinals[-1] >= size:  # of rows added since the corpus was made
        ordinals = ordinals[: np.searchsorted(ordinals, size)]
        frequencies = frequencies[: len(ordinals)]
    if part.alive is not None:
        kept = part.alive[ordinals]
        ordinals, frequencies = ordinals[kept], frequencies[kept]
    return (ordinals, frequencies) if len(ordinals) else None


def _added_up(source: SearchedSource, terms: Iterable[str]) -> Postings | None:
    """The postings of several terms, as those of one."""
    found = [arrays(postings) for term in terms if (postings := source.postings(term)) is not None]
    if not found:
        return None
    ordinals, sums = _summed([ordinals for ordinals, _ in found], [values for _, values in found])
    return ordinals, sums.astype(np.float32)


def _summed(
    ordinals: Sequence[Ordinals], values: Sequence[NDArray[np.floating]]
) -> tuple[Ordinals, Scores]:
    """Each ordinal once, ascending, with the sum of its values, added in the order given."""
    if len(ordinals) == 1:
        return ordinals[0], values[0].astype(np.float64, copy=False)
    distinct, places = np.unique(np.concatenate(ordinals), return_inverse=True)
    return distinct, np.bincount(places, np.concatenate(values)).astype(np.float64, copy=False)


def _allowed(
    part: _Part, found: _PostingsByTerm, query: TextQuery, among: Alive | None
) -> NDArray[np.bool_] | None:
    """By ordinal whether a row may match; None when every row with a scored term matches."""
    if not query.required and not query.excluded and among is None:
        return None
    allowed = np.ones(len(part.rowids), np.bool_)
    if among is not None:
        allowed &= _alive(part.rowids, among)
    for term in query.required:
        has = np.zeros(len(allowed), np.bool_)
        if term in found:
            has[found[term][0]] = True
        allowed &= has
    for term in query.excluded:
        if term in found:
            allowed[found[term][0]] = False
    return allowed


def best(rowids: Rowids, scores: Scores, limit: int) -> Ranking:
    """The `limit` rows with the highest scores above 0, in order; among equal ones newer first."""
    if len(scores) > _COLUMNS * 4 and limit < _COLUMNS:
        # At least `limit` columns have a maximum of `bound` or more, so as many rows do.
        whole = len(scores) - len(scores) % _COLUMNS
        maxima = scores[:whole].reshape(-1, _COLUMNS).max(axis=0)
        bound = np.partition(maxima, _COLUMNS - limit)[_COLUMNS - limit]
        kept = np.flatnonzero(scores >= max(bound, _LEAST))
    else:
        kept = np.flatnonzero(scores)
    rowids, scores = rowids[kept], scores[kept]
    if len(scores) > limit:
        # Again over the remaining rows: by score, and among equal scores by rowid.
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        above = np.flatnonzero(scores > least)
        equal = np.flatnonzero(scores == least)
        missing = limit - len(above)
        if len(equal) > missing:
            equal = equal[np.argpartition(rowids[equal], -missing)[-missing:]]
        kept = np.concatenate([above, equal])
        rowids, scores = rowids[kept], scores[kept]
    order = np.lexsort((-rowids, -scores))
    return rowids[order], scores[order]


def _verified(rowids: Rowids, scores: Scores, limit: int, verify: Verify) -> Ranking:
    """The first `limit` rows that pass."""
    passed: list[NDArray[np.int64]] = []
    count = start = 0
    while count < limit and start < len(rowids):
        end = start + max(limit, start)  # blocks double in size
        places = start + np.flatnonzero(verify(rowids[start:end]))
        passed.append(places)
        count += len(places)
        start = end
    chosen = np.concatenate(passed)[:limit] if passed else np.empty(0, np.int64)
    return rowids[chosen], scores[chosen]
