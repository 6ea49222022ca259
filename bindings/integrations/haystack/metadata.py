"""Questions about the metadata of documents: which fields there are, and which values.

Invariants:
- 1, 1.0, True and "1" are four values.
- Documents are read in pages, at one Lsn; memory has the distinct values.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import amberdb
from amberdb import Database
from amberdb._shared.queries import all_pages
from amberdb.integrations.haystack.filters import Filter, Path


def values(db: Database, collection: str, path: Path, where: Filter) -> Iterator[Any]:
    """The values of a field, of one document after the other, without None."""
    with db.snapshot() as at:
        for document in all_pages(at[collection].find, where, fields=[path]):
            value = amberdb.value_at(document, path)
            if value is not None:
                yield value


def distinct(found: Iterable[Any]) -> list[Any]:
    """Each value once, in the order of their texts."""
    by_key = {(str(value), type(value).__name__, _text(value)): value for value in found}
    return [by_key[key] for key in sorted(by_key)]


def fields_info(metas: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The fields of maps, and the type of each: boolean, int, float or keyword."""
    types: dict[str, str] = {}
    for meta in metas:
        for key, value in meta.items():
            if value is not None:
                types[key] = _type(value)
    return {key: {"type": name} for key, name in types.items()}


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else "keyword"


def _text(value: object) -> str:
    def other(inner: object) -> str:
        return inner.isoformat() if isinstance(inner, datetime) else repr(inner)

    return json.dumps(value, sort_keys=True, default=other)
