"""The analyzer: which terms a text gives, and which of them a query asks for."""

import subprocess
import sys
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import CollectionError
from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.folding import folded
from amberdb.index.text.pieces import composed, located, pieces
from amberdb.index.text.words import TERM_BYTES_MAX, casefolded

english = Analyzer.of()
plain = Analyzer.of(None)


def words(text: str, analyzer: Analyzer = english) -> list[str]:
    """The terms of a text without variants and stop words."""
    return analyzer.terms(text).words


def every(text: str, analyzer: Analyzer = english) -> set[str]:
    return set(chain.from_iterable(analyzer.terms(text)))


ANALYZERS = (
    *(english, plain, Analyzer.of("german"), Analyzer.of("french", False)),
    Analyzer.of(fold_traditional=True),
)

SNIPPETS = [
    *("C++", "#", "+", ".NET", "getUserName", "5kg", "v1.2", "für", "été", "İ", "ẞ", "👍🏽", "🇨🇳"),
    *("1️⃣", "\u200d", "\ufe0f", "ё", "ß", "/", ":", "㎏", "a", "Straße", "to", "I", "x", "™"),
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
    assert words("重跑gen-itgc后") == ["重", "跑", "重跑", "gen", "itgc", "genitgc", "后"]
    for query in ("重跑", "gen-itgc", "GEN", "itgc", "后", "genitgc"):
        assert every("重跑gen-itgc后").issuperset(english.query_terms(query)), query
    for query in ("iPhone 15", "iphone15", "iPhone15", "手机", "iphone", "phone"):
        assert every("买了iPhone15手机").issuperset(english.query_terms(query)), query


def test_a_query_asks_for_pairs_and_for_a_sign_only_when_it_is_alone() -> None:
    assert english.query_terms("下午的会议") == ["下午", "午的", "的会", "会议"]
    assert english.query_terms("猫 下午") == ["猫", "下午"]


def test_words_are_stemmed_and_stop_words_told_apart() -> None:
    assert english.terms("The meetings were moved, and she isn't happy") == (
        ["meet", "move", "happi"],
        [],
        ["=the", "=were", "=and", "=she", "=isnt"],
    )
    assert words("Caroline's Caroline’s O'Brien") == ["carolin", "carolin", "obrien"]
    assert words("The meetings", Analyzer.of(stop_words=False)) == ["the", "meet"]
    assert words("The meetings", plain) == ["the", "meetings"]
    # Words that a stop word becomes without its apostrophe are words.
    assert words("shell hell ill wed") == ["shell", "hell", "ill", "wed"]
    assert words("l'ami de la maison", Analyzer.of("french")) == ["ami", "maison"]


def test_a_query_of_stop_words_only_asks_for_them() -> None:
    assert english.query_terms("to be or not to be") == ["=to", "=be", "=or", "=not"]
    assert english.query_terms("to be a meeting") == ["meet"]
    # No word has the term of a stop word, though their stems are equal: cans and can.
    assert not every("cans wills") & every("can will")
    # A word is a stop word with its marks and without them.
    german = Analyzer.of("german")
    assert german.query_terms("für") == german.query_terms("fur") == ["=fur"]


def test_a_word_without_a_stem_is_its_own_term() -> None:
    assert words("s car", Analyzer.of("porter", stop_words=False)) == ["s", "car"]


def test_joined_words_find_each_other() -> None:
    assert words("e-mails") == ["e", "mail", "email"]
    assert words("email") == ["email"]
    assert words("lin.wang@example.com") == ["lin", "wang", "exampl", "com", "linwangexamplecom"]
    assert words("user_id U.S.A.") == ["user", "id", "userid", "u", "s", "usa"]
    assert words("R&D std::vector") == ["r", "d", "rd", "std", "vector", "stdvector"]


def test_a_joint_between_digits_stays() -> None:
    # 3.14 is not 314, and 1.2.3 not 12.3.
    assert words("3.14 2024-05-01") == ["3", "14", "3.14", "2024", "05", "01", "2024-05-01"]
    assert words("10:30 05/01/2024")[-1] == "05/01/2024"
    assert words("gpt-4") == ["gpt", "4", "gpt4"]
    assert every("python3.12") == {"python", "3", "python3", "12", "python3.12"}
    for version in ("v1.2.3", "1.2.3", "V1.2.3"):
        assert {"1", "2", "3", "1.2.3"} <= every(version), version
    assert "v1.2.3" in every("V1.2.3")


@pytest.mark.parametrize(
    ("text", "whole", "parts"),
    [
        ("getUserName", "getusernam", ["get", "user", "name"]),
        ("XMLHttpRequest", "xmlhttprequest", ["xml", "http", "request"]),
        ("parse_HTTPResponse", "parsehttprespons", ["pars", "http", "respons"]),
        ("OAuth2Token", "oauth2token", ["o", "auth", "2", "token"]),
        ("iPhone15", "iphone15", ["iphon", "phone", "15"]),
        ("GPT4", "gpt4", ["gpt", "4"]),
        ("100m2", "100m2", ["100", "m2"]),
        ("5kg", "5kg", ["5", "kg"]),
        ("org.example.UserService", "orgexampleuserservic", ["org", "exampl", "user", "servic"]),
        ("~/src/amberdb/__init__.py", "srcamberdbinitpi", ["src", "amberdb", "init", "py"]),
        ("C:\\Users\\lin", "cuserslin", ["c", "user", "lin"]),
        ("https://a.example/x?q=tea", "httpsaexamplexqtea", ["https", "exampl", "x", "q", "tea"]),
    ],
)
def test_names_are_found_whole_and_by_parts(text: str, whole: str, parts: list[str]) -> None:
    assert {whole, *parts} <= every(text)


def test_a_query_for_a_name_with_a_number_asks_for_no_other_number() -> None:
    assert english.query_terms("room12") == ["room12"]
    assert english.query_terms("GPT4") == ["gpt4"]
    assert "gpt4" in every("GPT-4")
    assert english.query_terms("iPhone15") == ["phone", "iphon", "iphone15"]
    # An amount may be written apart from its unit.
    assert english.query_terms("5kg 5㎏") == ["5", "kg", "5kg"]
    assert english.phrase("room12") == " room12 "


def test_words_and_codes_have_no_parts() -> None:
    for text in ("Hello", "HELLO", "hello", "h264", "m2", "a1b2c3", "Été"):
        assert len(english.pieces(text)) == 1
        assert len(words(text) or english.terms(text).variants[:1]) == 1, text
    assert words("A" * 100 + "b" * 100) == [*words(("A" * 100 + "b" * 100).lower())]


@pytest.mark.parametrize(
    ("text", "term", "plain"),
    [
        ("C++", "c++", "c"),
        ("C#", "c#", "c"),
        ("F#", "f#", "f"),
        ("C♯", "c#", "c"),
        ("g++", "g++", "g"),
        ("A+", "a+", "=a"),
    ],
)
def test_a_letter_with_a_sign_is_another_word(text: str, term: str, plain: str) -> None:
    assert english.terms(text) == ([term], [], [])
    assert plain not in every(f"we use {text} daily ({text}), 用{text}写, {text}.")
    assert term in every(f"we use {text} daily")
    assert term in every(f"用{text}写")
    assert english.phrase(text) == f" {term} "


def test_a_word_with_a_sign_is_found_without_it_and_after_those_that_have_none() -> None:
    assert english.terms(".NET") == ([".net"], ["net"], [])
    assert english.terms("Notepad++") == (["notepad"], ["notepad++"], [])
    assert english.terms("LGBTQ+ 18+") == (["lgbtq", "18"], ["lgbtq+", "18+"], [])
    assert english.terms("用.gitignore") == (["用", ".gitignor"], ["gitignor"], [])
    # Signs between words join or separate them, and belong to none.
    assert words("a+b x.y tea. +tea #tea") == ["b", "x", "y", "xy", "tea", "tea", "tea"]


def test_forms_of_writing_are_one() -> None:
    for one, other in (
        ("ＡＢＣ１２３", "abc123"),
        ("ｶﾞｷﾞ", "ガギ"),
        ("cafe\u0301", "CAFÉ"),
        ("STRASSE", "Straße"),
        ("STRAẞE", "Straße"),
        ("İstanbul", "istanbul"),
        ("so\u00adft", "soft"),
        ("ｇｅｎ－ｉｔｇｃ", "gen-itgc"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"),
        ("⼈", "人"),
        ("５㎏", "5kg"),
        ("１００㎡", "100m2"),
        ("㍿山田", "株式会社山田"),
        ("№ 7", "No 7"),
        ("Brand™", "Brand"),
    ):
        assert plain.terms(one) == plain.terms(other), one


def test_marks_are_folded_and_belong_to_their_letters() -> None:
    for marked, bare in (
        ("café", "cafe"),
        ("Müller", "muller"),
        ("Łódź", "lodz"),
        ("Ærøskøbing", "aeroskobing"),
        ("ΚΑΛΗΜΈΡΑ", "καλημερα"),
        ("Ёлка", "елка"),
        ("עִבְרִית", "עברית"),
        ("العَرَبِيَّة", "العربية"),
        ("ısparta", "isparta"),
    ):
        assert plain.terms(marked) == ([], [casefolded(marked), bare], []), marked
        assert plain.terms(bare).words == [bare]
        assert plain.query_terms(marked) == [casefolded(marked), bare]
        assert plain.phrase(marked) == plain.phrase(bare)
    # These are no marks that people leave out.
    for whole in ("हिन्दी", "में", "мой", "が"):
        assert folded(whole) == whole
    assert words("हिन्दी में", plain) == ["हिन्दी", "में"]


@pytest.mark.parametrize(
    ("text", "whole", "bases"),
    [
        ("🎂", "🎂", []),
        ("❤️", "❤", []),
        ("★", "★", []),
        ("👍🏽", "👍🏽", ["👍"]),
        ("👨‍👩‍👧", "👨‍👩‍👧", ["👨", "👩", "👧"]),
        ("🏳️‍🌈", "🏳‍🌈", ["🏳", "🌈"]),
        ("🇨🇳", "🇨🇳", []),
        ("1️⃣", "1⃣", ["1"]),
    ],
)
def test_a_pictograph_is_one_term_and_found_by_its_base(
    text: str, whole: str, bases: list[str]
) -> None:
    for around in ("{}", "- {}x", "会{}议", "🎉{}🎉", "{}."):
        (piece,) = [each for each in pieces(around.format(text)) if text == each]
        assert english.terms(piece) == ([whole], bases, [])
    assert english.query_terms(text) == [whole, *bases]
    assert pieces(text * 3) == [text] * 3
    assert english.phrase(text) in english.canonical(f"so {text}so")


def test_a_long_word_is_cut_and_told_apart() -> None:
    long = "x" * 300
    (one,), (other,) = words(long, plain), words(long + "y", plain)
    assert one != other
    assert one[:80] == long[:80]
    wide, bare = plain.terms("é" * 200).variants
    assert max(len(wide.encode()), len(bare)) <= TERM_BYTES_MAX


@given(texts)
def test_terms_are_bounded_and_found_by_their_own_text(text: str) -> None:
    for analyzer in ANALYZERS:
        found = analyzer.terms(text)
        terms = every(text, analyzer)
        for term in terms:
            assert 0 < len(term.encode(errors="surrogatepass")) <= TERM_BYTES_MAX
            assert "\0" not in term
            assert not term.isspace()
        assert set(analyzer.query_terms(text)) <= terms
        assert set(analyzer.phrase_terms(text)) <= terms
        assert analyzer.phrase(text) in analyzer.canonical(text)
        assert analyzer.terms(text) == found  # once more, out of the cache


@given(texts, texts, texts)
def test_a_phrase_is_found_inside_a_longer_text(before: str, text: str, after: str) -> None:
    for analyzer in ANALYZERS:
        whole = f"{before} {text} {after}"
        assert analyzer.phrase(text) in analyzer.canonical(whole)
        assert set(analyzer.phrase_terms(text)) <= every(whole, analyzer)


@given(texts)
def test_normalising_twice_changes_nothing(text: str) -> None:
    for normalise in (composed, casefolded, folded):
        once = normalise(text)
        assert normalise(once) == once


@given(texts)
def test_located_pieces_are_the_pieces_in_their_places(text: str) -> None:
    places = list(located(text))
    assert [piece for _, _, piece in places] == pieces(text)
    for start, end, _ in places:
        assert 0 <= start < end <= len(text)
    assert all(one[0] <= other[0] and one[1] <= other[1] for one, other in pairwise(places))


def test_a_piece_is_located_where_it_was_before_it_was_normalised() -> None:
    text = "重さ５㎏、cafe\u0301 ½"
    found = [(text[start:end], piece) for start, end, piece in located(text)]
    assert found == [
        ("重さ", "重さ"),
        ("５㎏", "5kg"),
        ("cafe\u0301", "café"),
        ("½", "1"),
        ("½", "2"),
    ]


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
    (term,) = words(word)
    for size in range(3, len(word) + 1):
        prefix = english.prefix(word[:size])
        assert prefix is not None
        start, also = prefix
        assert term.startswith(start) or term in also, word[:size]


def test_a_prefix_is_one_word() -> None:
    assert english.prefix("gen-it") == ("genit", ())
    assert english.prefix("会议") is None
    assert english.prefix("two words") is None
    assert english.prefix("👍") is None
    assert english.prefix("Café") == ("cafe", ())
    assert english.prefix("C++") == ("c++", ())
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
    assert every("下午的会议室", analyzer) == {*"下午的会议室", "下午", "会议", "会议室"}
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
    assert [analyzer.terms(word).words for word in many] == [[word] for word in many]
    assert len(analyzer._known) <= 10  # pyright: ignore[reportPrivateUsage]
    analyzer.terms("x" * 1_000)
    assert analyzer._known.is_full  # pyright: ignore[reportPrivateUsage]
