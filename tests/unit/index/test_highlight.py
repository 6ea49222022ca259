"""Snippets: which part of a text is shown, and what is marked in it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb.index.text import highlight
from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.anchors import BLOCK_CHARACTERS, Anchors, Place
from amberdb.index.text.highlight import ELLIPSIS, Snippets
from amberdb.index.text.pieces import Located, located
from amberdb.index.text.query import parse
from support.lines import lines_of

english = Analyzer.of()


def shown(text: str, *strings: str, characters: int = 160) -> str:
    snippets = Snippets(1, characters=characters, before="[", after="]")
    return snippets.of(strings, parse(text, english))


MARKED = [
    ("meeting", "Two Meetings, and a MEETING.", "Two [Meetings], and a [MEETING]."),
    ("会议室", "下午在会议室开会", "下午在[会议室]开会"),
    ("议", "会议和建议", "会[议]和建[议]"),
    ("gen-itgc", "重跑gen-itgc后", "重跑[gen-itgc]后"),
    ("tea*", "teapots and steam", "[teapots] and steam"),
    ("happy*", "a happy end", "a [happy] end"),
    ("+green -cake", "green tea, no cake", "[green] tea, no cake"),
    ('"the tea"', "the  tea\n\nof today", "the [tea] of today"),
    ("abc", "ＡＢＣ １", "[ＡＢＣ] １"),
    ("ガギ", "ｶﾞｷﾞ です", "[ｶﾞｷﾞ] です"),
    ("cafe\u0301", "le café", "le [café]"),
    ("absent", "nothing of it", "nothing of it"),
    ("what is it", "nothing of it", "nothing of [it]"),
    ("cafe", "le café", "le [café]"),
    ("user", "def getUserName(self)", "def [getUserName](self)"),
    ("C++", "C, C++ and C#", "C, [C++] and C#"),
    ("kg", "重さ５㎏、", "重さ[５㎏]、"),
    ("会社", "㍿山田", "[㍿山田]"),
    ("👍", "so 👍🏽!", "so [👍🏽]!"),
]
"""Query, text, and the text with its marks."""


@pytest.mark.parametrize(("query", "text", "expected"), MARKED)
def test_what_was_found_is_marked(query: str, text: str, expected: str) -> None:
    assert shown(query, text) == expected


def test_folded_signs_are_marked_where_they_stand() -> None:
    query = parse("会议", Analyzer.of(fold_traditional=True))
    assert Snippets(1).of(["下午的會議"], query) == "下午的**會議**"


def test_the_stretch_with_most_terms_is_shown() -> None:
    filler = "and so on " * 30
    text = f"Tea is here. {filler} A green tea room with tea. {filler} room"
    found = shown("green tea room", text, characters=60)
    assert "[green] [tea] [room] with [tea]." in found
    assert found.startswith(ELLIPSIS)
    assert found.endswith(ELLIPSIS)
    assert len(found) < 60 + 2 * len(ELLIPSIS) + 10
    assert "and so" not in found.split("[")[0][:5]  # cut between words


def test_the_string_with_most_terms_is_shown() -> None:
    assert shown("green tea", "tea", "green tea", "green") == "[green] [tea]"
    assert shown("green tea") == ""
    assert shown("tea", "", "some tea") == "some [tea]"
    assert shown("tea", "first", "second") == "first"


def test_a_long_word_is_cut() -> None:
    assert shown("a*", "a" * 5_000, characters=60) == f"[{'a' * 60}]{ELLIPSIS}"
    assert len(shown("会议", "ㇷ゚" * 5_000 + "会议", characters=60)) < 100


@pytest.mark.parametrize(("query", "text", "expected"), MARKED)
def test_what_was_found_is_shown_of_a_long_text(query: str, text: str, expected: str) -> None:
    filler = "Nobody wrote other words. \u5929\u6c14\u5f88\u597d\u3002\n" * 1_000
    found = shown(query, f"{filler}{text}\n{filler}")
    assert f" {expected} " in f" {found} ".replace(ELLIPSIS, " ") or "[" not in expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("userid", "the [user_id] of"),
        ("email", "an [e-mail] to"),
        ("use", "while [using] it"),
        ("die", "was [dying] then"),
        ("happiness", "a [happy] one"),
        ("id", "by [userId] and"),
        ("strasse", "die [Stra\u00dfe] dort"),
        ("stra\u00dfe", "die [STRASSE] dort"),
        ("istanbul", "from [\u0130stanbul] to"),
        ("cafe", "le [cafe\u0301] de"),
        ("office", "the [o\ufb03ce] of"),
        ("abc", "\u201d [\uff21\uff22\uff23] \u201d"),
        ("3.14", "pi is [3.14] here"),
        ("user", "[\U0001d42e\U0001d42c\U0001d41e\U0001d42b] here"),
        ("\U0001f44d", "so [\U0001f44d\U0001f3fd] there"),
        ("\U00020000\U00020001", "it is [\U00020000\U00020001] there"),
        ("not", "it is [not] there"),
    ],
)
def test_other_forms_of_a_word_are_found_in_a_long_text(query: str, text: str) -> None:
    filler = "Every sentence has origins. " * 500
    long = f"{filler}{text.translate({91: None, 93: None})}. {filler}"
    assert text in shown(query, long)


def test_a_snippet_is_cut_between_sentences() -> None:
    filler = "We walked along the river for an hour or so. " * 50
    found = shown("tea", f"{filler}There was green tea? He said so! {filler}", characters=100)
    assert found.startswith(f"{ELLIPSIS}We walked along")
    assert "There was green [tea]? He said so!" in found
    assert found.endswith((f"so!{ELLIPSIS}", f"so.{ELLIPSIS}"))
    filler = "\u6211\u4eec\u6cbf\u7740\u6cb3\u8d70\u4e86\u4e00\u4e2a\u5c0f\u65f6\u3002" * 100
    text = f"{filler}\u4ed6\u8bf4\uff1a\u201c\u53bb\u4f1a\u8bae\u5ba4\uff01\u201d{filler}"
    found = shown("\u4f1a\u8bae\u5ba4", text, characters=40)
    assert found.startswith(f"{ELLIPSIS}\u6211\u4eec")
    assert "\u53bb[\u4f1a\u8bae\u5ba4]\uff01\u201d" in found
    assert found.endswith(f"\u3002{ELLIPSIS}")
    lines = "2026-11-12 INFO started\n" * 100
    found = shown("worker", f"{lines}2026-11-13 WARN worker gone\n{lines}", characters=60)
    assert found == f"{ELLIPSIS}2026-11-13 WARN [worker] gone 2026-11-12 INFO started{ELLIPSIS}"


def test_every_matching_word_of_a_snippet_is_marked() -> None:
    text = f"tea {'x' * 60}. tea and green tea. {'y' * 200}"
    assert shown("green tea", text, characters=90).count("[tea]") == 3


@pytest.fixture
def analyzed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The characters of each piece that is analyzed."""
    sizes: list[int] = []
    part_terms = Analyzer.part_terms

    def counted_terms(self: Analyzer, part: str) -> list[str]:
        sizes.append(len(part))
        return part_terms(self, part)

    def counted(text: str) -> Iterator[Located]:
        sizes.append(len(text))
        return located(text)

    monkeypatch.setattr(Analyzer, "part_terms", counted_terms)
    monkeypatch.setattr(highlight, "located", counted)
    return sizes


@pytest.mark.parametrize(
    "unit", ["tea number%d ", "teapots-%d ", "\u4f1a\u8bae%d\u5f00\u4f1a\u3002", "nothing%d "]
)
@pytest.mark.parametrize(
    "query", ["tea absent", "tea", "green tea", "\u4f1a\u8bae \u4f1a\u957f", "t* absent"]
)
def test_of_a_long_text_little_is_analyzed(unit: str, query: str, analyzed: list[int]) -> None:
    text = "".join(unit % number for number in range(100_000))
    shown(query, text)
    assert sum(analyzed) < 12_000 + len(text) // 32


def test_reading_ends_where_every_term_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    places = Anchors.places

    def counted(self: Anchors, text: str, start: int, *rest: int) -> list[Place]:
        read.append(start)
        return places(self, text, start, *rest)

    monkeypatch.setattr(Anchors, "places", counted)
    assert shown("green tea", "green tea " * 10_000, "tea").startswith("[green] [tea]")
    assert read == [0]
    assert shown("green tea", "tea " * 10_000)  # without one of them: to the end
    assert read == [0, *range(0, 40_000, BLOCK_CHARACTERS)]


def test_a_text_is_read_in_blocks() -> None:
    """A call of C that reads a whole text would hold the interpreter."""

    class Text(str):
        def __getitem__(self, index: Any) -> str:
            assert index.stop - index.start < 2 * BLOCK_CHARACTERS
            return str(self)[index]

    anchors = Anchors(parse("tea absent", english))
    text = Text("tea " * 100_000)
    for start in range(0, len(text), BLOCK_CHARACTERS):
        assert anchors.places(text, start, 512, 160, 0)


def test_many_strings_are_searched_as_one_text(analyzed: list[int]) -> None:
    strings = [f"line {number} of the log" for number in range(5_000)]
    strings[3_000] = "some green tea"
    assert shown("green tea", *strings) == "some [green] [tea]"
    assert sum(analyzed) < 10_000


@pytest.mark.parametrize(
    ("unit", "query"),
    [
        ("会议", "会议 absent"),
        ("会议", "会议 议会 室内"),
        ("tea ", "tea absent"),
        ("t ", "t* absent"),
        ("tea-", "tea absent"),
    ],
)
def test_the_cost_grows_with_the_text_and_not_with_its_square(unit: str, query: str) -> None:
    shown(query, unit * 10)  # fills the caches
    short = lines_of(lambda: shown(query, unit * 2_000))
    assert lines_of(lambda: shown(query, unit * 4_000)) < 3 * short


def test_documents_share_the_characters_that_are_read() -> None:
    query = parse("tea", english)
    snippets = Snippets(3, 3_000, before="[", after="]")
    assert snippets.of(["tea"], query) == "[tea]"  # leaves almost all to the others
    assert "[tea]" in snippets.of(["x " * 700, "tea"], query)
    assert snippets.cut == 0
    assert "[tea]" not in snippets.of(["x " * 700, "x " * 200, "tea"], query)
    assert snippets.cut == 1
    assert Snippets(1, 0).of(["some tea"], query) == "some **tea**"  # of the start, always


words = st.lists(st.sampled_from(["tea", "green", "会议室", "x" * 30, "\n", "，"]), max_size=60)


@given(words.map(" ".join), st.integers(1, 80))
def test_a_snippet_is_a_piece_of_the_text(text: str, characters: int) -> None:
    plain = " ".join(text.split())
    found = shown("tea 会议", text, characters=characters)
    bare = found.replace("[", "").replace("]", "")
    assert bare.removeprefix(ELLIPSIS).removesuffix(ELLIPSIS) in plain
    assert len(bare) <= max(characters, 3) + 2 * len(ELLIPSIS)
    assert ("[" in found) == ("tea" in plain or "会议" in plain)


texts = st.lists(
    st.sampled_from(
        [
            "tea",
            "Teapot",
            "green-tea",
            "\u4f1a\u8bae\u5ba4",
            "\u4f1a\u8bba",
            "caf\u00e9",
            "x" * 30,
            "\n",
            ".",
            "\u3002",
            "and",
        ]
    ),
    max_size=60,
)


@given(texts.map(" ".join), st.sampled_from(["", "no word of it. "]), st.integers(20, 200))
def test_marked_is_what_has_a_term(text: str, filler: str, characters: int) -> None:
    query = parse("tea \u4f1a\u8bae cafe", english)
    found = shown("tea \u4f1a\u8bae cafe", filler * 200 + text, characters=characters)
    for marked, rest in re.findall(r"\[([^]]*)\]|([^][]+)", found):
        terms = {*english.terms(marked or rest.replace(ELLIPSIS, " ")).words}
        terms |= {*english.terms(marked or rest).variants}
        assert terms.isdisjoint(query.scored) is not bool(marked)
