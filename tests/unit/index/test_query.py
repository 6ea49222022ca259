"""Text and queries: what is asked, what each sign means, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import QueryError
from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.query import Prefix, TextQuery, parse, plain, within

english = Analyzer.of()


def query(text: str) -> TextQuery:
    return parse(text, english)


def test_plain_words_are_any_of_them() -> None:
    found = query("the old meetings, 下午的会议 gen-itgc old")
    assert found.scored == ("old", "meet", "下午", "午的", "的会", "会议", "gen", "itgc", "genitgc")
    assert not found.required
    assert not found.excluded
    assert not found.needs_text


def test_signs() -> None:
    found = query("+meeting -rooms tea")
    assert found.scored == ("meet", "tea")
    assert found.required == ("meet",)
    assert found.excluded == ("room",)
    assert not found.needs_text


def test_signs_inside_words_are_punctuation() -> None:
    for text in ("a tea - cake", "tea-cake", "tea + cake", "--tea cake", 'tea" cake', "tea*cake"):
        found = query(text)
        assert not found.required, text
        assert not found.excluded, text
        assert {"tea", "cake"} <= set(found.scored), text


def test_phrases_are_required_and_read_in_the_text() -> None:
    found = query('"the old meeting room" tea')
    assert found.required == ("old", "meet", "room")
    assert found.scored == ("old", "meet", "room", "tea")
    assert found.needs_text
    assert found.matches(["We saw the old meeting-room."])
    assert found.matches(["nothing here", "THE OLD MEETINGS ROOM"])
    assert not found.matches(["the old", "meeting room"])
    assert not found.matches(["the meeting room, old"])
    assert not found.matches([])


def test_a_phrase_of_one_term_needs_no_text() -> None:
    for text, term in (
        ('"meeting"', "meet"),
        ('"会议"', "会议"),
        ('"猫"', "猫"),
        ("+会议", "会议"),
    ):
        found = query(text)
        assert found.required == (term,)
        assert not found.needs_text


def test_excluded_phrases() -> None:
    found = query('tea -"green tea" -会议室')
    assert found.scored == ("tea",)
    assert not found.excluded
    assert found.matches(["black tea, 会议"])
    assert not found.matches(["black tea", "green tea"])
    assert not found.matches(["tea 在会议室里"])


def test_signed_words_of_several_pieces_are_phrases() -> None:
    found = query("+gen-itgc +会议室")
    assert found.required == ("gen", "itgc", "会议", "议室")
    assert set(found.scored) == {"gen", "itgc", "genitgc", "会议", "议室"}
    assert found.matches(["重跑gen-itgc后去会议室"])
    assert not found.matches(["itgc gen 会议室"])


def test_prefixes() -> None:
    found = query("tea* +meeti* -caf*")
    assert found.scored == (Prefix("tea"), Prefix("meeti", ("meet",)))
    assert found.required == (Prefix("meeti", ("meet",)),)
    assert found.excluded == (Prefix("caf"),)
    # Runs have pairs, so there a * adds nothing.
    assert query("会议*").scored == ("会议",)


def test_a_query_of_stop_words_only_asks_for_them() -> None:
    assert query("what is it?").scored == ("=what", "=is", "=it")
    assert query("what is tea?").scored == ("tea",)
    assert query("+the who").scored == query('"the" who').scored == ("=the",)
    assert query("tea -the").excluded == ("=the",)
    found = query('"to be or not"')
    assert found.required == found.scored == ("=to", "=be", "=or", "=not")
    assert found.matches(["To be or not to be"])
    assert not found.matches(["not to be or"])


def test_a_required_word_is_ranked_by_all_its_forms() -> None:
    assert query("+café").required == ("cafe",)
    assert query("+café").scored == query("café").scored == ("café", "cafe")
    assert query('"C++"').required == ("c++",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "add a word"),
        ("  ", "add a word"),
        ("?! ...", "add a word"),
        ("*", "add a word"),
        ("-tea", "only excluded words"),
        ('-"green tea" -cake', "only excluded words"),
        ('tea "green', "quote at character 5 of the query is not closed"),
        ('tea ""', "at character 5 of the query has no word"),
        ('tea "?"', "no word"),
        ("tea \ud800", "surrogate at character 5"),
    ],
)
def test_nonsense_is_refused(text: str, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        query(text)


def test_a_text_of_too_many_terms_is_cut_and_a_query_refused() -> None:
    words = " ".join(f"w{number}" for number in range(10))
    found = plain(words, english, terms_max=4)
    assert (found.scored, found.given) == (("w0", "w1", "w2", "w3"), 10)
    assert plain(words, english, terms_max=10) == plain(words, english)
    for operator in ("", "+w0", "-w11", '"w0 w1"', "w0*"):
        assert parse(f"{words} {operator}", english, terms_max=11).given in (10, 11)
        with pytest.raises(QueryError, match="query_terms_max is 4"):
            parse(f"{words} {operator}", english, terms_max=4)


@pytest.mark.parametrize("operator", ["+w{}", "-w{}", '"w{} tea"', '-"w{} tea"', "w{}*"])
def test_operators_have_a_limit(operator: str) -> None:
    clauses = ["tea", *(operator.format(number) for number in range(5))]
    assert parse(" ".join(clauses), english, operators_max=5)
    with pytest.raises(QueryError, match="query_operators_max"):
        parse(" ".join(clauses), english, operators_max=4)


def test_a_long_text_is_cut_between_words_and_a_long_query_refused() -> None:
    assert within("green tea", 9) == "green tea"
    assert within("green tea", 8) == "green"
    assert within("会议室", 8) == "会议"  # without spaces: between characters
    assert within("\ud800" * 9, 8) == ""
    assert parse("+green tea", english, bytes_max=10)
    for query in ("+green tea", "green  tea"):
        with pytest.raises(QueryError, match="query_bytes_max"):
            parse(query, english, bytes_max=9)


def test_a_text_has_no_operators() -> None:
    for text in ("+umbrella -tea", '"umbrella tea"', "umbrella* tea", '-"umbrella tea', '5" tea'):
        found = plain(text, english)
        assert found == TextQuery(english, found.scored, len(found.scored))
        assert set(found.scored) >= set(english.query_terms("tea")), text
    assert not plain("", english).scored
    assert not plain(" ?! \ud800 ... ", english).scored


pieces = st.sampled_from(
    ['"', "+", "-", "*", " ", "tea", "the", "会议室", "gen-itgc", "\ud800", "?"]
)


@given(st.lists(pieces, max_size=10).map("".join) | st.text(max_size=20))
def test_any_text_is_a_query_or_a_query_error(text: str) -> None:
    try:
        found = query(text)
    except QueryError:
        return
    assert set(found.required) <= set(found.scored)
    assert isinstance(found.matches([text]), bool)


@given(st.lists(pieces, max_size=10).map("".join) | st.text(max_size=20))
def test_any_text_asks_for_its_words(text: str) -> None:
    assert list(plain(text, english).scored) == english.query_terms(text)
