"""What people type into a full-text search, parsed and put into terms.

    words            any of them; a document with more of them, and rarer ones, comes first
    +word  -word     must be there; must not be there
    "a phrase"       must be there, word by word in one string; -"a phrase" must not
    pref*            any word that begins so; +pref* and -pref* too

Signs and quotes count only where a word begins; elsewhere they are punctuation. Word forms are
those of the index, so meetings finds meeting. Stop words count in phrases only. A signed word of
several pieces (+gen-itgc, or Han signs in a row) is a phrase.

Invariants:
- A document that matches has all `required` terms and none of the `excluded` ones. Phrases are more
  than their terms, and postings know no positions: of those matches() asks the document's text.
- A query is a pure function of text and analyzer, whatever is indexed.
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
    """Whatever term begins with `start`, and the terms `also`: one term to the ranking."""

    start: str
    also: tuple[str, ...] = ()


Term: TypeAlias = str | Prefix


@final
@dataclass(frozen=True, slots=True)
class TextQuery:
    """A parsed query; its terms are distinct."""

    analyzer: Analyzer
    scored: tuple[Term, ...]
    """What a document is ranked by: it has at least one of them."""
    required: tuple[Term, ...]
    excluded: tuple[Term, ...]
    phrases: tuple[str, ...]
    """In the form of Analyzer.phrase()."""
    excluded_phrases: tuple[str, ...]

    @property
    def needs_text(self) -> bool:
        """Whether terms do not decide: then ask matches() about each document."""
        return bool(self.phrases or self.excluded_phrases)

    def matches(self, strings: Iterable[str]) -> bool:
        """Whether these strings of a document have all of the phrases, and no excluded one."""
        texts = [self.analyzer.canonical(string) for string in strings]
        return all(any(phrase in text for text in texts) for phrase in self.phrases) and not any(
            phrase in text for phrase in self.excluded_phrases for text in texts
        )


def parse(text: str, analyzer: Analyzer) -> TextQuery:
    """The query that a text states. Raises QueryError when it states none."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QueryError(f"a text query is a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError("a text query with a lone surrogate") from None
    return _Parser(analyzer).parse(text)


class _Parser:
    """Collects the clauses of one query; the maps are sets that keep their order."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer
        self.scored: dict[Term, None] = {}
        self.required: dict[Term, None] = {}
        self.excluded: dict[Term, None] = {}
        self.phrases: dict[str, None] = {}
        self.excluded_phrases: dict[str, None] = {}

    def parse(self, text: str) -> TextQuery:
        asks = False
        for match in _CLAUSE.finditer(text):
            word: str | None = match["word"]
            if word is None:
                if not match["closed"]:
                    raise QueryError(f"a quote is opened and not closed: {match[0]!r}")
                sign, words = match["sign"], match["phrase"]
                self.phrase(sign, words)
                has_words = bool(self.analyzer.pieces(words))
            else:
                sign = word[0] if word[0] in "+-" and word[1:2].isalnum() else ""
                has_words = self.word(sign, word.removeprefix(sign))
            asks = asks or (sign != "-" and has_words)
        if not asks:
            only = "says only what must not be there" if self.is_negative else "has no word"
            raise QueryError(f"the text query {text!r} {only}: add a word to look for")
        if len(self.scored) > TERMS_MAX:
            raise QueryError(
                f"a text query of {len(self.scored)} terms; at most {TERMS_MAX} are ranked by"
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
        """Whether there is a word in it."""
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
        found = dict.fromkeys(terms)
        if sign == "-":
            self.excluded.update(found)
            return
        self.scored.update(found)
        if sign == "+":
            self.required.update(found)

    def phrase(self, sign: str, words: str) -> None:
        phrase = self.analyzer.phrase(words)
        terms = self.analyzer.phrase_terms(words)
        if not terms:
            what = "only stop words, which the index leaves out" if phrase else "no word"
            raise QueryError(f"{words!r} has {what}: leave it out of the text query")
        if phrase.strip() == terms[0]:  # the term decides
            self.terms(sign or "+", terms)
        elif sign == "-":
            self.excluded_phrases[phrase] = None
        else:
            self.phrases[phrase] = None
            self.required.update(dict.fromkeys(terms))
            self.terms("", self.analyzer.query_terms(words))
