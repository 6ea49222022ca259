"""Sources of a text index: the content of in-memory postings and segments, and packing."""

import itertools
import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import CorruptionError
from amberdb.index.text.packing import ROWS_KEY, arrays, term_key
from amberdb.index.text.postings import InMemoryPostings, Segment, Source, is_alive, segment_pairs
from amberdb.index.text.text import FREQUENCY_MAX, UNIT, Occurrences
from support.text_sources import in_memory_of, occurrences_of, source_of, spread

ROWIDS_MAX = 60
frequencies = st.integers(1, 3).map(lambda count: count * UNIT) | st.sampled_from(
    [1, 32, UNIT, 255 * UNIT, 256 * UNIT, FREQUENCY_MAX]
)
rows: st.SearchStrategy[dict[int, dict[str, int]]] = st.dictionaries(
    st.integers(1, ROWIDS_MAX),
    st.dictionaries(
        st.sampled_from(["a", "ab", "abc", "b", "会", "会议", "\U0001f600"]), frequencies
    ),
    max_size=25,
)
places = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def occurring(rows: Mapping[int, Mapping[str, int]]) -> dict[int, Occurrences]:
    return {rowid: occurrences_of(terms, UNIT) for rowid, terms in rows.items()}


def content(source: Source) -> dict[str, dict[int, float]]:
    """Per term rowid and frequency, asked term by term."""
    found: dict[str, dict[int, float]] = {}
    rowids = source.rowids
    for term in source.terms("", 1000):
        postings = source.postings(term)
        assert postings is not None
        ordinals, values = arrays(postings)
        assert np.all(np.diff(ordinals) > 0)
        found[term] = dict(zip(rowids[ordinals].tolist(), values.tolist(), strict=True))
    return found


def expected(rows: Mapping[int, Mapping[str, int]]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for rowid, terms in rows.items():
        for term, units in terms.items():
            found.setdefault(term, {})[rowid] = units / UNIT
    return found


@given(rows, places, st.sets(st.integers(1, ROWIDS_MAX)))
def test_in_memory_and_segments_hold_what_was_put_in(
    rows: dict[int, dict[str, int]], places: list[int], dead: set[int]
) -> None:
    given_rows = occurring(rows)
    postings = in_memory_of(given_rows)
    assert content(postings) == expected(rows)
    assert dict(zip(postings.rowids.tolist(), postings.lengths.tolist(), strict=True)) == {
        rowid: sum(terms.values()) / UNIT for rowid, terms in rows.items()
    }

    alive = np.ones(ROWIDS_MAX + 1, np.bool_)
    alive[list(dead)] = False
    living = {rowid: terms for rowid, terms in rows.items() if rowid not in dead}
    whole = list(segment_pairs([postings], alive))
    assert [key for key, _ in whole] == sorted(key for key, _ in whole)
    # However rows are spread over sources, and packed before: the same bytes.
    assert list(segment_pairs(spread(given_rows, places), alive)) == whole
    if not living:
        assert not whole
        return
    segment = source_of(dict(whole))
    assert segment.rowids.tolist() == sorted(living)
    assert content(segment) == expected(living)
    assert segment.lengths.tolist() == [
        sum(living[rowid].values()) / UNIT for rowid in sorted(living)
    ]


@given(rows, st.sampled_from(["", "a", "ab", "abcd", "会", "\U0001f600", "z"]), st.integers(1, 4))
def test_terms_with_a_prefix(rows: dict[int, dict[str, int]], prefix: str, limit: int) -> None:
    known = sorted({term for terms in rows.values() for term in terms if term.startswith(prefix)})
    postings = in_memory_of(occurring(rows))
    assert postings.terms(prefix, limit) == known[:limit]
    if rows:
        assert source_of(dict(segment_pairs([postings]))).terms(prefix, limit) == known[:limit]


@pytest.mark.parametrize("gap", [1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40])
def test_rowids_with_gaps_of_every_width(gap: int) -> None:
    given_rows = {rowid: occurrences_of({"a": 1}) for rowid in (5, 5 + gap, 6 + gap)}
    segment = source_of(dict(segment_pairs([in_memory_of(given_rows)])))
    assert segment.rowids.tolist() == [5, 5 + gap, 6 + gap]


@pytest.mark.parametrize("gap", [1, 255, 256, 65_535, 65_536, 70_000])
def test_ordinals_with_gaps_of_every_width(gap: int) -> None:
    growing = InMemoryPostings()
    rare, common = occurrences_of({"rare": 1, "common": 2}), occurrences_of({"common": 1})
    for rowid in range(1, gap + 3):
        growing.add(rowid, rare if rowid in (1, 1 + gap) else common)
    segment = source_of(dict(segment_pairs([growing])))
    postings = segment.postings("rare")
    assert postings is not None
    assert arrays(postings)[0].tolist() == [0, gap]
    assert content(segment) == content(growing)


def test_many_terms_are_packed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    given_rows = {
        rowid: occurrences_of({f"w{number}": 1 for number in range(rowid % 7, 40, rowid % 3 + 1)})
        for rowid in range(1, 60)
    }
    whole = list(segment_pairs([in_memory_of(given_rows)]))
    monkeypatch.setattr("amberdb.index.text.postings._BLOCK_ENTRIES", 10)
    assert list(segment_pairs([in_memory_of(given_rows)])) == whole
    assert list(segment_pairs(spread(given_rows, [0, 1, 2, 3]))) == whole


def test_a_merge_of_many_terms_holds_a_part_of_them() -> None:
    segments: list[Source] = []
    for start in range(0, 32_000, 4000):
        rows = {n: occurrences_of({f"word{n}": 1, "common": 1}) for n in range(start, start + 4000)}
        segments.append(source_of(dict(segment_pairs([in_memory_of(rows)]))))
    tracemalloc.start()
    try:
        assert sum(1 for _ in segment_pairs(segments)) == 32_000 + 2
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 12 << 20


def test_rows_added_after_rowids_were_taken_are_left_out_of_a_segment() -> None:
    postings = in_memory_of({1: occurrences_of({"a": 1})})
    pairs = segment_pairs([postings, in_memory_of({9: occurrences_of({"a": 2})})])
    taken = [next(pairs)]
    for rowid in range(2, 20):
        postings.add(rowid, occurrences_of({"a": 1, "b": 1}))
    segment = source_of(dict([*taken, *pairs]))
    assert content(segment) == {"a": {1: 1.0, 9: 2.0}}


def test_widths_and_forms_are_the_smallest_that_will_do() -> None:
    postings = in_memory_of(
        {rowid: occurrences_of({"a" if rowid < 3 else "b": 1, "c": 1}) for rowid in range(1, 999)}
    )
    postings.add(999, occurrences_of({"d": 2, "e": 1}))
    postings.add(1000, occurrences_of({"e": 32}, UNIT))
    pairs = dict(segment_pairs([postings]))
    sizes = {term: len(pairs[term_key(term)]) - 4 - 5 for term in "abcde"}
    # A step of one byte for each row but the first; frequencies only where one is not 1.
    assert sizes == {"a": 1, "b": 995, "c": 997, "d": 1, "e": 1 + 2 * 2}


def test_arrays_that_were_taken_do_not_hinder_adding() -> None:
    postings = in_memory_of({1: occurrences_of({"a": 1})})
    held = postings.rowids, postings.lengths, postings.postings("a")
    postings.add(2, occurrences_of({"a": 1}))
    assert len(postings) == 2
    assert held[0].tolist() == [1]


def test_a_memtable_reports_what_it_holds() -> None:
    postings = InMemoryPostings()
    sizes = [postings.size_bytes]
    for rowid in range(1, 100):
        postings.add(rowid, occurrences_of({"a": 1, f"w{rowid}": 1}))
        sizes.append(postings.size_bytes)
    assert sizes == sorted(set(sizes))


def test_rows_beyond_the_end_of_alive_are_not_born() -> None:
    alive = np.array([False, True, False, True])
    rowids = np.array([1, 2, 3, 4, 9])
    assert is_alive(rowids, alive).tolist() == [True, False, True, False, False]
    assert is_alive(rowids[:3], alive).tolist() == [True, False, True]


def segment_of_three() -> dict[bytes, bytes]:
    given_rows = {
        1: occurrences_of({"one": 1, "twice": 2}),
        300: occurrences_of({"one": 1, "half": 32}, UNIT),
        301: occurrences_of({"one": 1, "twice": 1, "half": 1}, UNIT),
    }
    return dict(segment_pairs([in_memory_of(given_rows)]))


@pytest.mark.parametrize("key", [ROWS_KEY, term_key("one"), term_key("twice"), term_key("half")])
def test_every_flipped_bit_and_every_cut_is_damage(key: bytes) -> None:
    pairs = segment_of_three()
    value = pairs[key]
    flips = [
        value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :]
        for at, bit in itertools.product(range(len(value)), range(8))
    ]
    cuts = [value[:size] for size in range(len(value))]
    for damaged in [*flips, *cuts, value + b"\0"]:
        with pytest.raises(CorruptionError):
            content(source_of(pairs | {key: damaged}))


def test_a_value_under_another_key_is_damage() -> None:
    pairs = segment_of_three()
    swapped = pairs | {term_key("one"): pairs[term_key("half")]}
    with pytest.raises(CorruptionError):
        content(source_of(swapped))
    with pytest.raises(CorruptionError):
        Segment(pairs[term_key("one")])
    with pytest.raises(CorruptionError):
        content(source_of(pairs | {b"t\xff": pairs[term_key("one")]}))


def test_postings_beyond_the_table_of_rows_are_damage() -> None:
    short = dict(segment_pairs([in_memory_of({1: occurrences_of({"one": 1})})]))
    with pytest.raises(CorruptionError):
        content(source_of(segment_of_three() | {ROWS_KEY: short[ROWS_KEY]}))
