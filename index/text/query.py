"""The query of a full-text search: from plain text, or from the query language.

    plain()   words of any text: match any of them; documents with more and rarer ones rank higher
    parse()   the same, and
              +word  -word     required; excluded
              "a phrase"       required, word by word in one string; -"a phrase" is excluded
              pref*            any word with this prefix; also +pref* and -pref*

Operators and quotes have an effect only at the start of a word; elsewhere they are punctuation.
Words are stemmed as the index is, so meetings matches meeting. Stop words count in phrases, and in
a query of nothing else. A word with an operator and several pieces (+gen-itgc, or several Han
characters) is a phrase.

Invariants:
- A matching document has all `required` terms and no `excluded` one. Postings have no positions, so
  matches() looks for phrases in the document's text.
- A query is a pure function of text, analyzer and limits, independent of the index.
- What is more than a limit allows is cut from a plain text, which people paste, and refused in the
  query language, where a part would ask something else.
- plain() takes every str. An error of parse() names the place of the clause that is wrong.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from reprlib import repr as show
from typing import TYPE_CHECKING, Final, TypeAlias, final

from amberdb._errors import QueryError

if TYPE_CHECKING:
    from amberdb.index.text.analyzer import Analyzer

BYTES_MAX: Final = 1 << 16
OPERATORS_MAX: Final = 1_000
TERMS_MAX: Final = 1_000

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
    """What is asked of one text index; its terms are distinct."""

    analyzer: "Analyzer"
    scored: tuple[Term, ...]
    """The terms that documents are ranked by: a match has at least one of them. None: no match."""
    given: int
    """The number of distinct terms in the text: more than are scored when it was cut."""
    required: tuple[Term, ...] = ()
    excluded: tuple[Term, ...] = ()
    phrases: tuple[str, ...] = ()
    """In the form of Analyzer.phrase()."""
    excluded_phrases: tuple[str, ...] = ()

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


def plain(text: str, analyzer: "Analyzer", *, terms_max: int = TERMS_MAX) -> TextQuery:
    """The query for the words of a text, or for its stop words; without any, nothing is scored."""
    asked = list(map(analyzer.asked, text.split()))
    terms = dict.fromkeys(term for each, _ in asked for term in each)
    terms = terms or dict.fromkeys(term for _, each in asked for term in each)
    return TextQuery(analyzer, tuple(islice(terms, terms_max)), len(terms))


def parse(
    query: str,
    analyzer: "Analyzer",
    *,
    operators_max: int = OPERATORS_MAX,
    terms_max: int = TERMS_MAX,
    bytes_max: int = BYTES_MAX,
) -> TextQuery:
    """Parses the query language. Raises QueryError."""
    try:
        size = len(query.encode())
    except UnicodeEncodeError as error:
        raise QueryError(f"the query has a lone surrogate{_at(error.start)}") from None
    if size > bytes_max:
        raise QueryError(
            f"the query has {size:,} bytes, and the limit query_bytes_max is {bytes_max:,}: "
            "shorten it, or raise the limit at open"
        )
    return _Parser(analyzer, operators_max, terms_max).parse(query)


def within(text: str, bytes_max: int) -> str:
    """The text, or the whole words of it within the limit."""
    data = text.encode(errors="surrogatepass")
    if len(data) <= bytes_max:
        return text
    head = data[:bytes_max].decode(errors="ignore")
    words = head.rsplit(None, 1)
    return words[0] if len(words) == 2 else head


def _at(position: int) -> str:
    return f" at character {position + 1}"


class _Parser:
    """Collects the clauses of one query. The maps are ordered sets."""

    def __init__(self, analyzer: "Analyzer", operators_max: int, terms_max: int) -> None:
        self.analyzer = analyzer
        self.place = ""
        """Where the clause begins, in words."""
        self.operators = 0
        self.operators_max = operators_max
        self.terms_max = terms_max
        self.scored: dict[Term, None] = {}
        self.stop_words: dict[Term, None] = {}
        self.required: dict[Term, None] = {}
        self.excluded: dict[Term, None] = {}
        self.phrases: dict[str, None] = {}
        self.excluded_phrases: dict[str, None] = {}

    def parse(self, query: str) -> TextQuery:
        has_positive = False
        for match in _CLAUSE.finditer(query):
            self.place = _at(match.start())
            word: str | None = match["word"]
            if word is None:
                if not match["closed"]:
                    raise QueryError(
                        f"the quote{self.place} of the query is not closed: {show(match[0])}"
                    )
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
            raise QueryError(f"the query {show(query)} {problem}: add a word to search for")
        scored = self.scored or self.stop_words
        given = len(scored)
        if given > self.terms_max:
            raise QueryError(
                f"the query has {given:,} terms, and the limit query_terms_max is "
                f"{self.terms_max:,}: leave words out, or raise the limit at open"
            )
        return TextQuery(
            self.analyzer,
            tuple(scored),
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
                f"the query has more than {self.operators_max:,} operators, the limit "
                "query_operators_max: ask in several queries, or raise the limit at open"
            )

    @property
    def is_negative(self) -> bool:
        return bool(self.excluded or self.excluded_phrases)

    def word(self, sign: str, word: str) -> bool:
        """Adds one clause. Returns whether it has a word."""
        terms, stop_words = self.analyzer.asked(word)
        prefix = self.analyzer.prefix(word.rstrip("*")) if word.endswith("*") else None
        if sign or prefix is not None:
            self.operator()
        if prefix is not None:
            self.terms(sign, [Prefix(*prefix)])
        elif sign:
            self.phrase(sign, word)
        else:
            self.scored.update(dict.fromkeys(terms))
            self.stop_words.update(dict.fromkeys(stop_words))
        return bool(terms or stop_words)

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
            raise QueryError(f"{show(words)}{self.place} of the query has no word: leave it out")
        is_term = phrase.strip() == terms[0]
        if sign == "-":
            if is_term:
                self.excluded.update(dict.fromkeys(terms))
            else:
                self.excluded_phrases[phrase] = None
            return
        if not is_term:
            self.phrases[phrase] = None
        self.required.update(dict.fromkeys(terms))
        self.scored.update(dict.fromkeys(self.analyzer.query_terms(words)))
