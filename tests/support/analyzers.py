"""Databases that another version of the analyzer has written."""

from collections.abc import Generator
from contextlib import contextmanager
from unittest.mock import patch

from amberdb import Document, Text
from amberdb.engine.schema import catalog, schema
from amberdb.index.text.text import Occurrences, TextExtractor


@contextmanager
def older_analyzer() -> Generator[None]:
    """In the block text indexes are declared and written with other terms, under another name."""
    occurrences = TextExtractor.occurrences

    def other(self: TextExtractor, document: Document) -> Occurrences:
        return [
            (units, length, [f"{t}s" for t in terms])
            for units, length, terms in occurrences(self, document)
        ]

    with (
        patch.object(catalog, "identity_of", _older),
        patch.object(schema, "identity_of", _older),
        patch.object(TextExtractor, "occurrences", other),
    ):
        yield


def _older(spec: object) -> str:
    return f"an older one of {spec}" if isinstance(spec, Text) else ""
