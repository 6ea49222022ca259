"""BM25 against its formula, computed one document at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from amberdb._errors import QueryError
from amberdb.index.text import bm25
from amberdb.index.text.bm25 import Corpus, best
from amberdb.index.text.postings import InMemoryPostings, Source
from amberdb.index.text.query import TextQuery, parse
from amberdb.index.text.text import Text, TextExtractor
from support.text_reference import ranked
from support.text_sources import in_memory_of, spread

extractor = TextExtractor(Text("content", "title", weights={"title": 2.5}))
words = ["tea", "teas", "cake", "meeting", "room", "the", "会议", "会议室", "gen-itgc"]
strings = st.lists(st.sampled_from(words), max_size=8).map(" ".join)
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"content": strings}, optional={"title": strings}
)
# Rowids far apart, near, in any order.
corpora = st.dictionaries(st.integers(1, 40), documents, max_size=20)
places = st.lists(st.integers(0, 3), min_size=1, max_size=5)
clauses = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "+", "-"]),
    st.sampled_from([*words, '"meeting room"', '"会议室"', "te*", "meeti*", "t*", "会议*"]),
)
queries = st.lists(clauses, min_size=1, max_size=4).map(" ".join)


def parsed(text: str) -> TextQuery | None:
    try:
        return parse(text, extractor.analyzer)
    except QueryError:
        return None


def searched(
    sources: list[Source],
    alive: NDArray[np.bool_],
    rows: dict[int, dict[str, Any]],
    query: TextQuery,
    limit: int,
    among: list[int] | None = None,
) -> list[tuple[int, float]]:
    def verify(rowids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.array(
            [query.matches(extractor.strings(rows[rowid])) for rowid in rowids.tolist()]
        )

    rowids, scores = Corpus(sources, alive).search(
        query,
        limit,
        among=None if among is None else np.array(among, np.int64),
        verify=verify if query.needs_text else None,
    )
    return list(zip(rowids.tolist(), scores.tolist(), strict=True))


@given(
    corpora,
    places,
    st.sets(st.integers(1, 40)),
    queries,
    st.integers(1, 8),
    st.none() | st.lists(st.integers(1, 45)),
    st.booleans(),
)
def test_the_best_rows_are_those_of_the_formula(
    rows: dict[int, dict[str, Any]],
    places: list[int],
    dead: set[int],
    text: str,
    limit: int,
    among: list[int] | None,
    is_sparse: bool,
) -> None:
    query = parsed(text)
    if query is None:
        return
    living = {rowid: document for rowid, document in rows.items() if rowid not in dead}
    alive = np.zeros(max(living, default=0) + 1, np.bool_)
    alive[list(living)] = True
    rows_of = {rowid: extractor.occurrences(document) for rowid, document in rows.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "_SPARSE", 0 if is_sparse else 1 << 30)
        patch.setattr(bm25, "_FEW", 0)
        found = searched(spread(rows_of, places), alive, living, query, limit, among)
        # To the last bit the same, in one source that never held the dead ones.
        fresh: list[Source] = [in_memory_of({rowid: rows_of[rowid] for rowid in living})]
        assert searched(fresh, alive, living, query, limit, among) == found
        patch.setattr(bm25, "_SPARSE", 1 << 30 if is_sparse else 0)
        assert searched(fresh, alive, living, query, limit, among) == found
        patch.setattr(bm25, "_FEW", 1000)
        assert searched(fresh, alive, living, query, limit, among) == found
    expected = ranked(extractor, living, query, among)
    assert len(found) == min(limit, len(expected))
    assert found == sorted(found, key=lambda row: (-row[1], -row[0]))
    scores = dict(expected)
    for (rowid, score), (_, other) in zip(found, expected, strict=False):
        assert score == pytest.approx(scores[rowid], rel=1e-9)
        assert score == pytest.approx(other, rel=1e-9)


def corpus_of(*texts: str) -> Corpus:
    rows_of = {
        rowid: extractor.occurrences({"content": text}) for rowid, text in enumerate(texts, 1)
    }
    return Corpus([in_memory_of(rows_of)], np.ones(len(texts) + 1, np.bool_))


def query(text: str) -> TextQuery:
    return parse(text, extractor.analyzer)


def test_equal_scores_put_the_newer_row_first() -> None:
    rowids, scores = corpus_of("tea", "cake", "tea", "tea").search(query("tea"), 2)
    assert rowids.tolist() == [4, 3]
    assert scores[0] == scores[1]


def test_required_and_excluded_terms() -> None:
    corpus = corpus_of("tea", "tea cake", "tea cake room", "cake")
    for text, found in (
        ("tea +cake", {2, 3, 4}),
        ("tea -cake", {1}),
        ("tea cake -room", {1, 2, 4}),
        ("+te* +cake -roo*", {2}),
        ("tea +absent", set[int]()),
    ):
        assert set(corpus.search(query(text), 10)[0].tolist()) == found, text


def test_nothing_is_found_in_nothing() -> None:
    for corpus in (Corpus([], np.zeros(1, np.bool_)), corpus_of("", "the"), corpus_of("cake")):
        rowids, scores = corpus.search(query("tea +room"), 10)
        assert len(rowids) == len(scores) == 0
    assert len(corpus_of("tea", "cake").search(query("what is it"), 10)[0]) == 0


def test_a_score_depends_on_the_visible_rows_only() -> None:
    texts = ["tea", "tea cake", "room with tea", "cake"]
    rows_of = {
        rowid: extractor.occurrences({"content": text}) for rowid, text in enumerate(texts, 1)
    }
    churned = dict(rows_of)
    for rowid in range(10, 60):
        churned[rowid] = extractor.occurrences({"content": "tea tea room" * (rowid % 5)})
    alive = np.array([False, True, True, True, True])
    expected = Corpus([in_memory_of(rows_of)], alive).search(query("tea cake"), 9)
    found = Corpus(spread(churned, [0, 1, 2]), alive).search(query("tea cake"), 9)
    assert found[0].tolist() == expected[0].tolist()
    assert found[1].tolist() == expected[1].tolist()
    filtered = Corpus([in_memory_of(rows_of)], alive).search(
        query("tea cake"), 9, among=np.array([2, 4])
    )
    by_row = dict(zip(*(values.tolist() for values in expected), strict=True))
    assert filtered[0].tolist() == [rowid for rowid in by_row if rowid in (2, 4)]
    assert filtered[1].tolist() == [by_row[2], by_row[4]]


def test_phrases_are_looked_for_in_the_order_of_scores_until_enough_are_found() -> None:
    asked: list[int] = []

    def verify(rowids: NDArray[np.int64]) -> NDArray[np.bool_]:
        asked.extend(rowids.tolist())
        return np.equal(rowids % 3, 0)

    corpus = corpus_of(*["green tea"] * 100)
    rowids, _ = corpus.search(query('"green tea"'), 2, verify=verify)
    assert rowids.tolist() == [99, 96]
    assert asked == list(range(100, 92, -1))
    assert corpus.search(query('"green tea"'), 200, verify=verify)[0].tolist() == list(
        range(99, 0, -3)
    )


def test_a_prefix_of_too_many_terms_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25, "PREFIX_TERMS_MAX", 2)
    corpus = corpus_of("tea teapot", "team")
    with pytest.raises(QueryError, match="longer prefix"):
        corpus.search(query("te*"), 10)
    assert corpus.search(query("team*"), 10)[0].tolist() == [2]
    assert corpus.search(query("team* teap*"), 10)[0].tolist() == [2, 1]
    with pytest.raises(QueryError, match="longer prefixes"):  # all of them together
        corpus.search(query("team* teap* tea*"), 10)


def test_rows_added_during_a_search_do_not_count() -> None:
    memtable = in_memory_of({1: extractor.occurrences({"content": "tea"})})
    alive = np.ones(3, np.bool_)
    corpus = Corpus([memtable], alive)
    expected = corpus.search(query("tea te*"), 10)
    memtable.add(2, extractor.occurrences({"content": "tea tea"}))
    found = corpus.search(query("tea te*"), 10)
    assert [values.tolist() for values in found] == [values.tolist() for values in expected]
    assert Corpus([memtable], alive).search(query("tea"), 10)[0].tolist() == [2, 1]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 50, 3000]), st.integers(1, 30))
def test_the_best_of_many_and_equal_scores(seed: int, kinds: int, limit: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.integers(0, kinds, 3000).astype(np.float64)  # enough of them for the fast way
    rowids = draw.permutation(3000)
    found = best(rowids, values, limit)
    pairs = [pair for pair in zip(rowids.tolist(), values.tolist(), strict=True) if pair[1]]
    expected = sorted(pairs, key=lambda pair: (-pair[1], -pair[0]))[:limit]
    assert list(zip(found[0].tolist(), found[1].tolist(), strict=True)) == expected


steps = st.lists(
    st.tuples(st.lists(documents, max_size=3), st.sets(st.integers(0, 30), max_size=3)), max_size=6
)


@given(corpora, steps, queries)
def test_a_corpus_that_is_carried_over_equals_one_made_anew(
    rows: dict[int, dict[str, Any]],
    changes: list[tuple[list[dict[str, Any]], set[int]]],
    text: str,
) -> None:
    query = parsed(text)
    living = dict(rows)
    rows_of = {rowid: extractor.occurrences(document) for rowid, document in rows.items()}
    growing = InMemoryPostings()
    sources: list[Source] = [*spread(rows_of, [1, 2, 3]), growing]
    mask = np.zeros(max(rows, default=0) + 1, np.bool_)
    mask[list(rows)] = True
    corpus = Corpus(sources, mask)
    end = len(mask)
    for added, numbers in changes:
        # Removed are rows of before; one of the new ones may be dead at once, others are unseen.
        removed = [rowid for rowid in numbers if living.pop(rowid, None) is not None]
        alive = np.concatenate([mask, np.zeros(len(added), np.bool_)])
        alive[removed] = False
        for rowid, document in enumerate(added, end):
            growing.add(rowid, extractor.occurrences(document))
            if rowid % 5:
                living[rowid] = document
                alive[rowid] = True
        end += len(added)
        growing.add(end, [(64, 64, ["tea"])])  # of a later commit
        end += 1
        corpus = corpus.after(sources, alive, removed)
        fresh = Corpus(sources, alive)
        assert (corpus.count, corpus.length_mean) == (fresh.count, fresh.length_mean)
        assert corpus.count == len(living)
        if query is not None and not query.needs_text:
            found = [each.search(query, 50) for each in (corpus, fresh)]
            assert [part.tolist() for part in found[0]] == [part.tolist() for part in found[1]]
        mask = np.concatenate([alive, np.zeros(end - len(alive), np.bool_)])
