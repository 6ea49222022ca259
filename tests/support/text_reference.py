"""Full-text search once more, as plainly as it can be written: every document is read, each time.

It shares the analyzer with the package, and nothing else.
"""

# What a document holds has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from amberdb.index.text.query import Prefix, Term, TextQuery
from amberdb.index.text.text import UNIT, TextExtractor
from amberdb.index.text.words import STOP

K1, B = 0.9, 0.4


def weighted_terms(extractor: TextExtractor, document: Mapping[str, Any]) -> dict[str, float]:
    """How often the document has each term, each field's occurrences times its weight; stop words
    count 1 in every field."""
    counts: dict[str, float] = {}
    for field, weight in zip(extractor.spec.fields, extractor.spec.weights, strict=True):
        value = document.get(field)
        strings: list[Any] = value if isinstance(value, list) else [value]
        for string in strings:
            if isinstance(string, str):
                words, variants, stop_words = extractor.analyzer.terms(string)
                half = max(weight * UNIT // 2, 1) / UNIT
                for terms, value in ((words, weight), (variants, half), (stop_words, 1.0)):
                    for term, count in Counter(terms).items():
                        counts[term] = counts.get(term, 0.0) + count * value
    return counts


def frequency(counts: Mapping[str, float], term: Term) -> float:
    if isinstance(term, Prefix):
        return sum(
            count
            for word, count in counts.items()
            if word.startswith(term.start) or word in term.also
        )
    return counts.get(term, 0.0)


def ranked(
    extractor: TextExtractor,
    rows: Mapping[int, Mapping[str, Any]],
    query: TextQuery,
    among: Sequence[int] | None = None,
) -> list[tuple[int, float]]:
    """All rows that match, rowid and score, best first; of equal scores the newer first."""
    counts = {rowid: weighted_terms(extractor, document) for rowid, document in rows.items()}
    lengths = {
        rowid: sum(count for term, count in terms.items() if not term.startswith(STOP))
        for rowid, terms in counts.items()
    }
    mean = sum(lengths.values()) / len(lengths) if lengths else 0.0
    dfs = {
        term: sum(frequency(terms, term) > 0 for terms in counts.values()) for term in query.scored
    }
    found: list[tuple[int, float]] = []
    for rowid, terms in counts.items():
        if among is not None and rowid not in among:
            continue
        if not all(frequency(terms, term) for term in query.required):
            continue
        if any(frequency(terms, term) for term in query.excluded):
            continue
        if not query.matches(extractor.strings(dict(rows[rowid]))):
            continue
        score = 0.0
        for term in query.scored:
            tf = frequency(terms, term)
            if tf:
                longer = lengths[rowid] / mean if mean else 0.0
                idf = log(1 + (len(rows) - dfs[term] + 0.5) / (dfs[term] + 0.5))
                norm = 1 - B + B * longer
                score += idf * tf * (K1 + 1) / (tf + K1 * norm)
        if score:
            found.append((rowid, score))
    return sorted(found, key=lambda row: (-row[1], -row[0]))
