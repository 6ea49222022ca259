"""Text: the declaration, and what the index has of a document."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import CollectionError, FormatError
from amberdb.index.text.text import UNIT, WEIGHT_MAX, Text, TextExtractor
from support.text_reference import weighted_terms

units = st.integers(1, WEIGHT_MAX * UNIT)


@st.composite
def declarations(draw: st.DrawFn) -> Text:
    fields = draw(st.lists(st.sampled_from(["a", "b.c", "d"]), min_size=1, unique=True))
    return Text(
        *fields,
        weights={field: draw(units) / UNIT for field in fields if draw(st.booleans())},
        language=draw(st.sampled_from([None, "english", "french"])),
        stop_words=draw(st.booleans()),
        name=draw(st.none() | st.just("words")),
    )


strings = st.lists(
    st.sampled_from(["dog", "dogs", "cat", "the", "会议", "e-mail", "café", ".NET", "x" * 200]),
    max_size=6,
).map(" ".join)
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"a": strings | st.integers() | st.lists(strings, max_size=3), "d": strings}
)


@given(declarations())
def test_a_declaration_comes_back_from_the_catalog(spec: Text) -> None:
    again = Text.from_map(spec.to_map())
    assert again == spec
    assert hash(again) == hash(spec)
    assert eval(repr(spec)) == spec


def test_the_declaration_in_words() -> None:
    assert repr(Text("content", "title", weights={"title": 2})) == (
        "Text('content', 'title', weights={'title': 2.0})"
    )
    assert Text("content").name == "text:content"
    assert Text("a", language=None) != Text("a")
    with pytest.raises(AttributeError):
        Text("a").language = None  # type: ignore[misc]  # pyright: ignore


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ((), {}),
        (("a", "a"), {}),
        (("-a",), {}),
        (("",), {}),
        ((1,), {}),
        (("a",), {"weights": {"b": 1.0}}),
        (("a",), {"weights": {"a": 0}}),
        (("a",), {"weights": {"a": float("nan")}}),
        (("a",), {"weights": {"a": WEIGHT_MAX + 1}}),
        (("a",), {"weights": {"a": True}}),
        (("a",), {"weights": 2.0}),
        (("a",), {"language": 1}),
        (("a",), {"stop_words": "yes"}),
        (("a",), {"segmenter": "scissors"}),
        (("a",), {"fold_traditional": 1}),
        (("a",), {"name": ""}),
    ],
)
def test_a_declaration_without_sense_is_refused(
    fields: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(CollectionError):
        Text(*fields, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "vector"},
        {"colour": "red"},
        {"fields": "a"},
        {"fields": [["a"]]},
        {"fields": ["a", "b"]},
        {"weights": [0.0]},
        {"weights": None},
        {"language": 3},
        {"name": None, "fields": [None]},
    ],
)
def test_a_stored_declaration_of_another_version_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Text.from_map(Text("a").to_map() | change)
    stored = Text("a").to_map()
    del stored["language"]
    with pytest.raises(FormatError):
        Text.from_map(stored)


def test_an_unknown_language_is_refused_when_the_index_is_made() -> None:
    with pytest.raises(CollectionError, match="klingon"):
        TextExtractor(Text("a", language="klingon"))


def test_a_field_stands_for_all_its_strings() -> None:
    extractor = TextExtractor(Text("content", "meta.tags"))
    document: dict[str, Any] = {
        "content": ["one", {"x": "two", "y": ["three", 4, None]}, "five"],
        "meta": {"tags": {"k": "six"}, "other": "seven"},
    }
    assert extractor.content(document) == (("one", "two", "three", "five"), ("six",))
    assert extractor.strings(document) == ["one", "two", "three", "five", "six"]
    assert extractor.occurrences(document) == [
        (UNIT, UNIT, [word]) for word in ("one", "two", "three", "five", "six")
    ]


def test_no_string_is_no_content_and_an_empty_one_is_content_without_terms() -> None:
    extractor = TextExtractor(Text("a", "b"))
    nothings: list[dict[str, Any]] = [{}, {"a": None, "b": 3}, {"a": [], "b": {"c": 1}}]
    for nothing in nothings:
        assert extractor.content(nothing) is None
        assert extractor.strings(nothing) == []
    for empty in ({"a": ""}, {"b": "!?"}, {"a": ["?"], "b": []}):
        assert extractor.content(empty) is not None
        assert not any(terms for _, _, terms in extractor.occurrences(empty))


def test_variants_count_half_and_stop_words_add_nothing_to_the_length() -> None:
    extractor = TextExtractor(Text("a", "b", weights={"b": 1 / UNIT}))
    assert extractor.occurrences({"a": "the café", "b": "a .NET"}) == [
        (UNIT, UNIT, []),
        (UNIT // 2, UNIT // 2, ["café", "cafe"]),
        (UNIT, 0, ["=the"]),
        (1, 1, [".net"]),
        (1, 1, ["net"]),
        (UNIT, 0, ["=a"]),
    ]


def test_content_changes_with_a_string_and_with_nothing_else() -> None:
    extractor = TextExtractor(Text("a", "b"))
    content = extractor.content({"a": "x", "n": 1})
    assert content == extractor.content({"a": "x", "n": 2, "b": 3})
    assert content == extractor.content({"a": ["x"]})
    others: list[dict[str, Any]] = [
        {"a": "X"},
        {"b": "x"},
        {"a": "x", "b": "y"},
        {"a": ["x", ""]},
    ]
    for other in others:
        assert content != extractor.content(other)


@given(declarations(), documents)
def test_a_term_counts_as_often_as_its_fields_weigh(spec: Text, document: dict[str, Any]) -> None:
    extractor = TextExtractor(spec)
    expected = weighted_terms(extractor, {**document, "b.c": None})
    counts: Counter[str] = Counter()
    for units, _, terms in extractor.occurrences(document):
        for term in terms:
            counts[term] += units
    assert {term: count / UNIT for term, count in counts.items()} == expected


def test_importing_amberdb_loads_no_library_of_search() -> None:
    code = (
        "import sys, amberdb; heavy = {'numpy', 'Stemmer', 'jieba', 'opencc', "
        "'amberdb.index.text.analyzer'}; print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
