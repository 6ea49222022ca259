"""The kept set of typed queries: what people type finds what they mean."""

from collections import Counter

from amberdb import Database, Text
from bench.quality.datasets import typed
from bench.quality.scores import first
from bench.quality.searches import amberdb_search


def test_typed_queries_find_their_documents_first(db: Database) -> None:
    kept = typed()
    assert len(kept.questions) >= 150
    search = amberdb_search(kept, Text("text"), db)
    missed = [
        (asked.kind, asked.text)
        for asked in kept.questions
        if first(asked, search(asked.text, asked.group)) < 1
    ]
    # An apostrophe is part of a word in English, the language of the index, and no ending follows.
    assert missed == [("accent", "istanbul")]
    assert min(Counter(asked.kind for asked in kept.questions).values()) > 1
