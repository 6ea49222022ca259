"""Snippets: which part of a text is shown, and what is marked in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.highlight import ELLIPSIS, snippet
from amberdb.index.text.query import parse

english = Analyzer.of()


def shown(text: str, *strings: str, characters: int = 160) -> str:
    return snippet(strings, parse(text, english), characters=characters, before="[", after="]")


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
        ("what is it", "nothing of it", "nothing of it"),
    ],
)
def test_what_was_found_is_marked(query: str, text: str, expected: str) -> None:
    assert shown(query, text) == expected


def test_folded_signs_are_marked_where_they_stand() -> None:
    query = parse("会议", Analyzer.of(fold_traditional=True))
    assert snippet(["下午的會議"], query) == "下午的**會議**"


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


words = st.lists(st.sampled_from(["tea", "green", "会议室", "x" * 30, "\n", "，"]), max_size=60)


@given(words.map(" ".join), st.integers(1, 80))
def test_a_snippet_is_a_piece_of_the_text(text: str, characters: int) -> None:
    plain = " ".join(text.split())
    found = shown("tea 会议", text, characters=characters)
    bare = found.replace("[", "").replace("]", "")
    assert bare.removeprefix(ELLIPSIS).removesuffix(ELLIPSIS) in plain
    assert len(bare) <= max(characters, 3) + 2 * len(ELLIPSIS)
    assert ("[" in found) == ("tea" in plain or "会议" in plain)
