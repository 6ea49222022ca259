"""The analyzer: which terms a text gives, and which of them a query asks for."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import CollectionError
from amberdb.index.text.analyzer import TERM_BYTES_MAX, Analyzer, located, normalise

english = Analyzer.of()
plain = Analyzer.of(None)
ANALYZERS = (english, plain, Analyzer.of("german", False), Analyzer.of(fold_traditional=True))

SNIPPETS = [
    *(
        "gen-itgc",
        "Caroline's",
        "don't",
        "the",
        "meetings",
        "重跑",
        "后",
        "会议室",
        " ",
        "。",
        "-",
        "'",
    ),
    *("é", "e\u0301", "\u00ad", "ｶﾞ", "Straße", "½", "ﷺ", "한국어", "ไทย", "\0", "हिन्दी"),
]
texts = st.text(max_size=30) | st.lists(st.sampled_from(SNIPPETS), max_size=8).map("".join)


def test_mixed_strings_are_split_by_script() -> None:
    assert english.terms("重跑gen-itgc后") == ["重", "跑", "重跑", "gen", "itgc", "genitgc", "后"]
    found = set(english.terms("重跑gen-itgc后"))
    for query in ("重跑", "gen-itgc", "GEN", "itgc", "后", "genitgc"):
        assert found.issuperset(english.query_terms(query)), query


def test_a_query_asks_for_pairs_and_for_a_sign_only_when_it_is_alone() -> None:
    assert english.query_terms("下午的会议") == ["下午", "午的", "的会", "会议"]
    assert english.query_terms("猫 下午") == ["猫", "下午"]


def test_words_are_stemmed_and_stop_words_left_out() -> None:
    assert english.terms("The meetings were moved, and she isn't happy") == [
        "meet",
        "move",
        "happi",
    ]
    assert english.terms("Caroline's Caroline’s O'Brien") == ["carolin", "carolin", "obrien"]
    assert Analyzer.of(stop_words=False).terms("The meetings") == ["the", "meet"]
    assert plain.terms("The meetings") == ["the", "meetings"]
    # Words that a stop word becomes without its apostrophe are words.
    assert english.terms("shell hell ill wed") == ["shell", "hell", "ill", "wed"]
    assert Analyzer.of("french").terms("l'ami de la maison") == ["ami", "maison"]


def test_a_word_without_a_stem_is_its_own_term() -> None:
    assert Analyzer.of("porter", stop_words=False).terms("s car") == ["s", "car"]


def test_joined_words_find_each_other() -> None:
    assert english.terms("e-mails") == ["e", "mail", "email"]
    assert english.terms("email") == ["email"]
    assert english.terms("lin.wang@example.com") == [
        *("lin", "wang", "exampl", "com", "linwangexamplecom")
    ]
    assert english.terms("user_id U.S.A.") == ["user", "id", "userid", "u", "s", "usa"]
    # A whole of digits keeps its joints: 3.14 is not 314.
    assert english.terms("3.14 2024-05-01") == [
        *("3", "14", "3.14", "2024", "05", "01", "2024-05-01")
    ]


def test_forms_of_writing_are_one() -> None:
    for one, other in (
        ("ＡＢＣ１２３", "abc123"),
        ("ｶﾞｷﾞ", "ガギ"),
        ("cafe\u0301", "CAFÉ"),
        ("STRASSE", "Straße"),
        ("so\u00adft", "soft"),
        ("ｇｅｎ－ｉｔｇｃ", "gen-itgc"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"),
        ("⼈", "人"),
    ):
        assert plain.terms(one) == plain.terms(other), one


def test_marks_belong_to_their_letters() -> None:
    assert plain.terms("हिन्दी में") == ["हिन्दी", "में"]
    assert plain.terms("עִבְרִית العَرَبِيَّة") == ["עִבְרִית", "العَرَبِيَّة"]


def test_a_long_word_is_cut_and_told_apart() -> None:
    long = "x" * 300
    (one,), (other,) = plain.terms(long), plain.terms(long + "y")
    assert one != other
    assert one[:80] == long[:80]
    (wide,) = plain.terms("é" * 200)
    assert len(wide.encode()) <= TERM_BYTES_MAX


@given(texts)
def test_terms_are_bounded_and_found_by_their_own_text(text: str) -> None:
    for analyzer in ANALYZERS:
        terms = analyzer.terms(text)
        for term in terms:
            assert 0 < len(term.encode(errors="surrogatepass")) <= TERM_BYTES_MAX
            assert "\0" not in term
            assert not term.isspace()
        assert set(analyzer.query_terms(text)) <= set(terms)
        assert set(analyzer.phrase_terms(text)) <= set(terms)
        assert analyzer.phrase(text) in analyzer.canonical(text)
        assert analyzer.terms(text) == terms  # once more, out of the cache


@given(texts, texts, texts)
def test_a_phrase_is_found_inside_a_longer_text(before: str, text: str, after: str) -> None:
    for analyzer in ANALYZERS:
        whole = f"{before} {text} {after}"
        assert analyzer.phrase(text) in analyzer.canonical(whole)
        assert set(analyzer.phrase_terms(text)) <= set(analyzer.terms(whole))


@given(texts)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(texts)
def test_located_pieces_are_the_pieces(text: str) -> None:
    for analyzer in ANALYZERS:
        pieces = [analyzer.pieces(match[0]) for match in located(text)]
        assert [piece for each in pieces for piece in each] == analyzer.pieces(text)


def test_phrases_mind_the_ends_of_words_but_not_of_runs() -> None:
    said = english.canonical("We met at the old meeting room, 在会议室开会")
    for phrase in ("meeting room", "the old", "议室", "会议室开", "room 在会", "met"):
        assert english.phrase(phrase) in said, phrase
    for phrase in ("eting room", "meeting roo", "old room", "会室", "开会议"):
        assert english.phrase(phrase) not in said, phrase
    assert english.phrase("art room") not in english.canonical("a smart room")
    assert english.phrase("smart roo") not in english.canonical("a smart room")
    assert english.phrase("?!") == ""


@pytest.mark.parametrize("word", ["meeting", "happily", "university", "relations", "stories"])
def test_every_beginning_of_a_word_finds_it(word: str) -> None:
    (term,) = english.terms(word)
    for size in range(3, len(word) + 1):
        prefix = english.prefix(word[:size])
        assert prefix is not None
        start, also = prefix
        assert term.startswith(start) or term in also, word[:size]


def test_a_prefix_is_one_word() -> None:
    assert english.prefix("gen-it") == ("genit", ())
    assert english.prefix("会议") is None
    assert english.prefix("two words") is None
    assert english.prefix("*") is None


def test_the_identity_names_what_has_a_say() -> None:
    identities = {analyzer.identity for analyzer in ANALYZERS}
    assert len(identities) == len(ANALYZERS)
    assert all("unicode=" in identity for identity in identities)
    assert Analyzer.of(stop_words=False).identity != english.identity
    assert Analyzer.of() is english


@pytest.mark.slow
def test_jieba_gives_words_in_place_of_pairs() -> None:
    analyzer = Analyzer.of(segmenter="jieba")
    assert "jieba=" in analyzer.identity
    assert set(analyzer.terms("下午的会议室")) == set("下午的会议室") | {"下午", "会议", "会议室"}
    assert analyzer.query_terms("会议室 猫") == ["会议", "会议室", "猫"]
    # A phrase asks for signs, which no cut can hide.
    assert set(analyzer.phrase_terms("午的会")) == set("午的会")
    assert analyzer.terms("ひらがな") == english.terms("ひらがな")


def test_traditional_signs_count_as_simplified() -> None:
    analyzer = Analyzer.of(fold_traditional=True)
    assert analyzer.terms("下午的會議") == english.terms("下午的会议")
    assert analyzer.query_terms("會議") == ["会议"]


def test_a_missing_extra_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['jieba'] = sys.modules['opencc'] = None\n"
        "from amberdb.index.text.analyzer import Analyzer\n"
        "for options in ({'segmenter': 'jieba'}, {'fold_traditional': True}):\n"
        "    try:\n        Analyzer.of(**options)\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 2
    assert all("CollectionError" in line and "amberdb[zh]" in line for line in lines)


@pytest.mark.parametrize("options", [{"language": "klingon"}, {"segmenter": "scissors"}])
def test_unknown_libraries_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(CollectionError):
        Analyzer.of(**options)  # pyright: ignore[reportArgumentType]


def test_the_cache_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amberdb.index.text.analyzer._CACHE_WORDS_MAX", 10)
    analyzer = Analyzer(None)
    many = [f"w{number}" for number in range(1000)]
    assert analyzer.terms(" ".join(many)) == many
    assert len(analyzer._terms) <= 10  # pyright: ignore[reportPrivateUsage]
