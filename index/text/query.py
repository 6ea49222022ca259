"""The query language of full-text search: parsing, and the terms of a query.

    words            match any of them; documents with more and rarer ones rank higher
    +word  -word     required; excluded
    "a phrase"       required, word by word in one string; -"a phrase" is excluded
    pref*            any word with this prefix; also +pref* and -pref*

Operators and quotes have an effect only at the start of a word; elsewhere they are punctuation.
Words are stemmed as the index is, so meetings matches meeting. Stop words count only in phrases. A
word with an operator and several pieces (+gen-itgc, or several Han characters) is a phrase.

Invariants:
- A matching document has all `required` terms and no `excluded` one. Postings have no positions, so
  matches() looks for phrases in the document's text.
- A query is a pure function of text, analyzer and limits, independent of the index.
- What is more than a limit allows is cut from a plain text, which people paste, and refused in a
  query with operators, which a part of it would change.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from reprlib import repr as show
from typing import Final, TypeAlias, final

from amberdb._errors import QueryError
from amberdb.index.text.analyzer import Analyzer

OPERATORS_MAX: Final = 1_000
TERMS_MAX: Final = 1_000

_CLAUSE: Final = re.compile(r'(?P<sign>[-+]?)"(?P<phrase>[^"]*)(?P<closed>"?)|(?P<word>\S+)')
_HAS_OPERATOR: Final = re.compile(r'(?<!\S)[-+]?(?:"|(?<=[-+])[^\W_])|\w\*+(?!\S)').search


@final
@dataclass(frozen=True, slots=True)
class Prefix:
    """All terms that begin with `start`, and the terms `also`: ranked as one term."""

    start: str
    also: tuple[str, ...] = ()


Term: TypeAlias = str | Prefix


@final
@dataclass(frozen=True, slots=True)
class TextQuery:
    """A parsed query; its terms are distinct."""

    analyzer: Analyzer
    scored: tuple[Term, ...]
    """The terms that documents are ranked by: a match has at least one of them."""
    given: int
    """The number of distinct terms in the text: more than are scored when it was cut."""
    required: tuple[Term, ...]
    excluded: tuple[Term, ...]
    phrases: tuple[str, ...]
    """In the form of Analyzer.phrase()."""
    excluded_phrases: tuple[str, ...]

    @property
    def needs_text(self) -> bool:
        """Whether the terms do not decide a match, so that matches() has to be called."""
        return bool(self.phrases or self.excluded_phrases)

    def matches(self, strings: Iterable[str]) -> bool:
        """Whether these strings of a document contain all phrases and no excluded phrase."""
        texts = [self.analyzer.canonical(string) for string in strings]
        return all(any(phrase in text for text in texts) for phrase in self.phrases) and not any(
            phrase in text for phrase in self.excluded_phrases for text in texts
        )


def parse(
    text: str,
    analyzer: Analyzer,
    *,
    operators_max: int = OPERATORS_MAX,
    terms_max: int = TERMS_MAX,
) -> TextQuery:
    """Parses a text query. Raises QueryError for an invalid one."""
    _encoded(text)
    return _Parser(analyzer, operators_max, terms_max).parse(text)


def within(text: str, bytes_max: int) -> str:
    """The text, or the whole words of it within the limit. Raises QueryError when it is longer and
    has operators."""
    data = _encoded(text)
    if len(data) <= bytes_max:
        return text
    if _HAS_OPERATOR(text):
        raise QueryError(
            f"the text query has operators and {len(data):,} bytes, and the limit query_bytes_max "
            f"is {bytes_max:,}: shorten it, or raise the limit at open"
        )
    head = data[:bytes_max].decode(errors="ignore")
    words = head.rsplit(None, 1)
    return words[0] if len(words) == 2 else head


def _encoded(text: str) -> bytes:
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QueryError(f"a text query must be a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise QueryError("a text query has a lone surrogate") from None


class _Parser:
    """Collects the clauses of one query. The maps are ordered sets."""

    def __init__(self, analyzer: Analyzer, operators_max: int, terms_max: int) -> None:
        self.analyzer = analyzer
        self.operators = 0
        self.operators_max = operators_max
        self.terms_max = terms_max
        self.scored: dict[Term, None] = {}
        self.required: dict[Term, None] = {}
        self.excluded: dict[Term, None] = {}
        self.phrases: dict[str, None] = {}
        self.excluded_phrases: dict[str, None] = {}

    def parse(self, text: str) -> TextQuery:
        has_positive = False
        for match in _CLAUSE.finditer(text):
            word: str | None = match["word"]
            if word is None:
                if not match["closed"]:
                    raise QueryError(f"the text query has an unclosed quote: {show(match[0])}")
                sign, words = match["sign"], match["phrase"]
                self.operator()
                self.phrase(sign, words)
                has_words = bool(self.analyzer.pieces(words))
            else:
                sign = word[0] if word[0] in "+-" and word[1:2].isalnum() else ""
                has_words = self.word(sign, word.removeprefix(sign))
            has_positive = has_positive or (sign != "-" and has_words)
        if not has_positive:
            problem = "has only excluded words" if self.is_negative else "has no word"
            raise QueryError(f"the text query {show(text)} {problem}: add a word to search for")
        given = len(self.scored)
        if given > self.terms_max and self.operators:
            raise QueryError(
                f"the text query has operators and {given:,} terms, and the limit query_terms_max "
                f"is {self.terms_max:,}: leave words out, or raise the limit at open"
            )
        return TextQuery(
            self.analyzer,
            tuple(self.scored)[: self.terms_max],
            given,
            tuple(self.required),
            tuple(self.excluded),
            tuple(self.phrases),
            tuple(self.excluded_phrases),
        )

    def operator(self) -> None:
        self.operators += 1
        if self.operators > self.operators_max:
            raise QueryError(
                f"the text query has more than {self.operators_max:,} operators, the limit "
                "query_operators_max: ask in several queries, or raise the limit at open"
            )

    @property
    def is_negative(self) -> bool:
        return bool(self.excluded or self.excluded_phrases)

    def word(self, sign: str, word: str) -> bool:
        """Adds one clause. Returns whether it has a word."""
        terms, has_words = self.analyzer.asked(word)
        prefix = self.analyzer.prefix(word.rstrip("*")) if word.endswith("*") else None
        if sign or prefix is not None:
            self.operator()
        if prefix is not None:
            self.terms(sign, [Prefix(*prefix)])
        elif sign:
            self.phrase(sign, word)
        else:
            self.terms("", terms)
        return has_words

    def terms(self, sign: str, terms: Iterable[Term]) -> None:
        distinct = dict.fromkeys(terms)
        if sign == "-":
            self.excluded.update(distinct)
            return
        self.scored.update(distinct)
        if sign == "+":
            self.required.update(distinct)

    def phrase(self, sign: str, words: str) -> None:
        phrase = self.analyzer.phrase(words)
        terms = self.analyzer.phrase_terms(words)
        if not terms:
            content = "only stop words, which are not indexed" if phrase else "no word"
            raise QueryError(f"{show(words)} has {content}: leave it out of the text query")
        if phrase.strip() == terms[0]:  # a phrase of one term
            self.terms(sign or "+", terms)
        elif sign == "-":
            self.excluded_phrases[phrase] = None
        else:
            self.phrases[phrase] = None
            self.required.update(dict.fromkeys(terms))
            self.terms("", self.analyzer.query_terms(words))
