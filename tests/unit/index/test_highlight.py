"""Snippets: which part of a text is shown, and what is marked in it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb.index.text import highlight
from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.highlight import ELLIPSIS, Snippets
from amberdb.index.text.pieces import Located, located
from amberdb.index.text.query import parse
from support.lines import lines_of

english = Analyzer.of()


def shown(text: str, *strings: str, characters: int = 160) -> str:
    snippets = Snippets(1, characters=characters, before="[", after="]")
    return snippets.of(strings, parse(text, english))


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
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
    ],
)
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


def test_reading_ends_where_every_term_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def counted(text: str) -> Iterator[Located]:
        nonlocal read
        for piece in located(text):
            read += 1
            yield piece

    monkeypatch.setattr(highlight, "located", counted)
    assert shown("green tea", "green tea " * 10_000, "tea").startswith("[green] [tea]")
    assert read < 100
    assert shown("green tea", "tea " * 10_000)  # without one of them: to the end
    assert read > 10_000


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
