"""LangChain's documents as those of AmberDB, and its filters of metadata as filters.

    {id, page_content, metadata: {...}}

Invariants:
- A filter names fields of the metadata and nothing else: neither the text nor the vector.
- A filter that is not understood is an error, never a search without it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast
from uuid import uuid4

from langchain_core.documents import Document

import amberdb
from amberdb import Database, IndexSpec, QueryError

Filter: TypeAlias = Mapping[Any, Any]
"""AmberDB's filter language (docs/queries.md), about the metadata: {"page": {"$gt": 3}}."""

OWNER: Final = "langchain"
FIELDS: Final = ("id", "page_content", "metadata")
"""The fields of a document without its vector."""

_JUNCTIONS: Final = ("$and", "$or")


def row_of(document: Document) -> dict[str, Any]:
    """The document as it is stored; one without an id gets one."""
    return {
        "id": document.id or str(uuid4()),
        "page_content": document.page_content,
        "metadata": document.metadata,
    }


def document_of(row: amberdb.Document) -> Document:
    """The stored document as LangChain has it."""
    return Document(id=row["id"], page_content=row["page_content"], metadata=row["metadata"])


def documents_of(rows: Iterable[amberdb.Document | None]) -> list[Document]:
    """Those of the stored documents that are there."""
    return [document_of(row) for row in rows if row is not None]


def where_of(filter: Filter | None) -> dict[Any, Any] | None:
    """The filter of metadata as a filter of documents; None for none. Raises QueryError."""
    if filter is None:
        return None
    if not isinstance(filter, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QueryError(
            f"filter must be a map of conditions about the metadata, not {filter!r}: "
            'write {"source": "a.txt"}'
        )
    return {_field(name): _condition(name, value) for name, value in filter.items()}


def _condition(name: Any, value: Any) -> Any:
    if name in _JUNCTIONS:
        if not isinstance(value, list | tuple):
            raise QueryError(f"{name} takes a list of filters, not {value!r}")
        return [where_of(each) for each in cast(Sequence[Filter], value)]
    return where_of(value) if name == "$not" else value


def _field(name: Any) -> Any:
    """A field of the metadata as a path: a str with dots, a list of keys as a tuple or as JSON."""
    if isinstance(name, tuple):
        return ("metadata", *cast(tuple[str, ...], name))
    if not isinstance(name, str):
        raise QueryError(f"a field of the metadata is named by a str, not {name!r}")
    if name.startswith("$"):
        return name
    if name.startswith(".["):
        return ("metadata", *json.loads(name[1:]))
    return f"metadata.{name}"


def refuse_others(call: str, others: Mapping[str, Any]) -> None:
    """Raises TypeError for arguments that the call does not have. They are not passed over: a
    misspelt `filter` would find the documents of others."""
    if others:
        raise TypeError(f"{call}() has no arguments {', '.join(sorted(others))}")


def declared(
    db: Database, name: str, own: Sequence[IndexSpec], more: Sequence[IndexSpec] | None
) -> list[IndexSpec]:
    """The indexes to declare of an adapter's collection: its own and those of the program; where
    the program names none, those that the collection has stay."""
    if more is None:
        more = db.definition(name).specs if name in db.collections() else ()
        names = {index.name for index in own}
        more = [index for index in more if index.name not in names]
    return [*own, *more]
