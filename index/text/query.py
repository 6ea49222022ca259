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
- A query is a pure function of text and analyzer, independent of the index.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from amberdb._errors import QueryError
from amberdb.index.text.analyzer import Analyzer

TERMS_MAX: Final = 1024

_CLAUSE: Final = re.compile(r'(?P<sign>[-+]?)"(?P<phrase>[^"]*)(?P<closed>"?)|(?P<word>\S+)')


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


def parse(text: str, analyzer: Analyzer) -> TextQuery:
    """Parses a text query. Raises QueryError for an invalid one."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QueryError(f"a text query must be a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError("a text query has a lone surrogate") from None
    return _Parser(analyzer).parse(text)


class _Parser:
    """Collects the clauses of one query. The maps are ordered sets."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer
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
                    raise QueryError(f"the text query has an unclosed quote: {match[0]!r}")
                sign, words = match["sign"], match["phrase"]
                self.phrase(sign, words)
                has_words = bool(self.analyzer.pieces(words))
            else:
                sign = word[0] if word[0] in "+-" and word[1:2].isalnum() else ""
                has_words = self.word(sign, word.removeprefix(sign))
            has_positive = has_positive or (sign != "-" and has_words)
        if not has_positive:
            problem = "has only excluded words" if self.is_negative else "has no word"
            raise QueryError(f"the text query {text!r} {problem}: add a word to search for")
        if len(self.scored) > TERMS_MAX:
            raise QueryError(
                f"the text query has {len(self.scored)} terms, and the limit is {TERMS_MAX}"
            )
        return TextQuery(
            self.analyzer,
            tuple(self.scored),
            tuple(self.required),
            tuple(self.excluded),
            tuple(self.phrases),
            tuple(self.excluded_phrases),
        )

    @property
    def is_negative(self) -> bool:
        return bool(self.excluded or self.excluded_phrases)

    def word(self, sign: str, word: str) -> bool:
        """Adds one clause. Returns whether it has a word."""
        terms, has_words = self.analyzer.asked(word)
        prefix = self.analyzer.prefix(word.rstrip("*")) if word.endswith("*") else None
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
            raise QueryError(f"{words!r} has {content}: leave it out of the text query")
        if phrase.strip() == terms[0]:  # a phrase of one term
            self.terms(sign or "+", terms)
        elif sign == "-":
            self.excluded_phrases[phrase] = None
        else:
            self.phrases[phrase] = None
            self.required.update(dict.fromkeys(terms))
            self.terms("", self.analyzer.query_terms(words))
