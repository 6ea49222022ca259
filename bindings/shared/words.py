"""The words of a text, as a Text index tells them: for stores that search without one, or with that
of another database.

This is the only module of bindings/ that imports the analyzer: a search that the same program makes
in another store has to mean the same.

Invariants:
- A text has a word exactly when a document that holds it is a hit of search(word).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, cast, final

from amberdb.index.text.analyzer import Analyzer

_PARTS_MAX: Final = 50_000
_PART_CHARACTERS_MAX: Final = 40


def texts_in(value: Any) -> Iterator[str]:
    """All strings inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in cast(Mapping[str, Any], value).values():
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in cast(Sequence[Any], value):
            yield from texts_in(inner)


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of texts, in their order, in all forms that a search may ask for."""
    analyzer = Analyzer.of()
    return list(
        dict.fromkeys(word for text in texts for part in analyzer.terms(text) for word in part)
    )


def query_words(text: str) -> list[str]:
    """The distinct words that a search for a text asks for: a text with any of them is a hit."""
    return Analyzer.of().query_terms(text)


@final
class Words:
    """The words that a text asks for."""

    def __init__(self, text: str) -> None:
        self._asked = _Asked(text)

    def __bool__(self) -> bool:
        return bool(self._asked.terms)

    def count_in(self, texts: Iterable[str]) -> int:
        """How many of the words are in these texts."""
        parts = chain.from_iterable(map(str.split, texts))
        return len(set(chain.from_iterable(map(self._asked.__getitem__, parts))))


@final
class _Asked(dict[str, frozenset[str]]):
    """The terms that are asked for in each part of a text between white space. Cached: texts
    repeat their words, and few are asked for."""

    __slots__ = ("_analyzer", "terms")

    def __init__(self, text: str) -> None:
        super().__init__()
        self._analyzer = Analyzer.of()
        self.terms = frozenset(self._analyzer.query_terms(text))

    def __missing__(self, part: str) -> frozenset[str]:
        terms = self._analyzer.terms(part)
        found = self.terms.intersection(chain.from_iterable(terms))
        if len(part) <= _PART_CHARACTERS_MAX:
            if len(self) >= _PARTS_MAX:
                self.clear()
            self[part] = found
        return found
