"""The words of a text, as a Text index tells them: for stores that search without one.

This is the only module of bindings/ that imports the analyzer: a search that the same program makes
in another store has to mean the same.

Invariants:
- A text has a word exactly when a document that holds it is a hit of search(word).
"""

from collections.abc import Iterable
from typing import final

from amberdb.index.text.analyzer import Analyzer


@final
class Words:
    """The words that a text asks for."""

    def __init__(self, text: str) -> None:
        self._analyzer = Analyzer.of()
        self._asked = frozenset(self._analyzer.query_terms(text))

    def __bool__(self) -> bool:
        return bool(self._asked)

    def count_in(self, texts: Iterable[str]) -> int:
        """How many of the words are in these texts."""
        found: set[str] = set()
        for text in texts:
            terms = self._analyzer.terms(text)
            for each in (terms.words, terms.variants, terms.stop_words):
                found.update(self._asked.intersection(each))
        return len(found)
