"""Rows about what an index adds to a put: a vector index, and the check of a unique index.

Invariants:
- Puts are of class `os`: an index costs processor time, which a sync would hide.
- The collections of a line differ in one index, and get the same documents in the same order.
- Each round inserts documents of its own, then replaces them, then updates them.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import amberdb
from amberdb import Collection, Ordered, Unique, Vector
from bench.harness.context import Context
from bench.harness.line import AMBER, Line, Measured
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import events, vectors
from bench.workloads.events import BATCH_DOCUMENTS, Document

_LOADED = 2 * BATCH_DOCUMENTS
"""Documents in a collection before the first round."""
_BYTES = "bytes, no index"
_ORDERED = "ordered index"
_OPERATIONS = ("insert", "replace", "update")

Turn: TypeAlias = Callable[[int, Sampler], None]


@dataclass(frozen=True)
class _Contender:
    """A collection's index, and how it gets a document."""

    index: Ordered | Unique | Vector | None
    shape: Callable[[Document], Document] = lambda document: document


def vector_put(context: Context) -> Iterator[Line]:
    """The vector indexed, given as an array and as a list; and stored as plain bytes."""
    dim = context.scale.dim
    listed = "list of floats"
    contenders = {
        AMBER: _Contender(Vector("embedding", dim=dim)),
        listed: _Contender(Vector("embedding", dim=dim), _with_vector(lambda one: one.tolist())),
        _BYTES: _Contender(None, _with_vector(lambda one: one.tobytes())),
    }
    count = _LOADED + 2 * context.scale.rounds * context.scale.puts
    documents = list(vectors.documents(0, count, dim))
    titles = {
        "insert": f"insert with a vector of {dim}, an array",
        "replace": "  replace with another vector",
        "update": "  update of the text alone",
    }
    yield from _compare(context, "vector_put", contenders, documents, titles)


def unique_put(context: Context) -> Iterator[Line]:
    """A unique index and an ordered one on the same field, whose values are all different."""
    contenders = {
        AMBER: _Contender(Unique("source_key")),
        _ORDERED: _Contender(Ordered("source_key")),
    }
    count = _LOADED + 2 * context.scale.rounds * context.scale.puts
    documents = [{**one, "source_key": f"key-{one['id']}"} for one in events.documents(0, count)]
    titles = {
        "insert": "insert into a unique index",
        "replace": "  replace with another unique value",
        "update": "  update of a field without index",
    }
    yield from _compare(context, "unique_put", contenders, documents, titles)


def _compare(
    context: Context,
    row: str,
    contenders: dict[str, _Contender],
    documents: list[Document],
    titles: dict[str, str],
) -> Iterator[Line]:
    """One line for each operation."""
    rounds = context.scale.rounds
    path = context.directory / row
    turns: dict[str, Turn] = {}
    with amberdb.open(path, sync="os") as db:
        for name, contender in contenders.items():
            shaped = map(contender.shape, documents)
            indexes = [Ordered("entity_id"), *([contender.index] if contender.index else [])]
            collection = db.collection(f"c{len(turns)}", indexes=indexes)
            for _ in range(_LOADED // BATCH_DOCUMENTS):
                collection.put_many(list(islice(shaped, BATCH_DOCUMENTS)))
            inserted = [list(islice(shaped, context.scale.puts)) for _ in range(rounds)]
            others = [list(islice(shaped, context.scale.puts)) for _ in range(rounds)]
            for operation, turn in _turns(collection, inserted, others).items():
                turns[f"{operation} {name}"] = turn
        db.checkpoint()
        by_operation = {
            key: turns[key] for one in _OPERATIONS for key in turns if key.startswith(one)
        }
        measured = interleave(rounds, by_operation)
    shutil.rmtree(path)
    for operation in _OPERATIONS:
        engines: dict[str, Measured] = {
            name: measured[f"{operation} {name}"] for name in contenders
        }
        yield Line(row, f"{titles[operation]}, sync os", "us", engines)


def _turns(
    collection: Collection, inserted: list[list[Document]], others: list[list[Document]]
) -> dict[str, Turn]:
    """The operations on one collection: `others` are the contents of the replacements."""
    replacements = [
        [{**new, "id": old["id"]} for old, new in zip(*pair, strict=True)]
        for pair in zip(inserted, others, strict=True)
    ]

    def update(document: Document) -> object:
        return collection.update(document["id"], {"content": "moved to Thursday"})

    return {
        "insert": lambda number, sampler: sampler.each(collection.insert, inserted[number]),
        "replace": lambda number, sampler: sampler.each(collection.put, replacements[number]),
        "update": lambda number, sampler: sampler.each(update, inserted[number]),
    }


def _with_vector(convert: Callable[[Any], object]) -> Callable[[Document], Document]:
    return lambda document: {**document, "embedding": convert(document["embedding"])}


ROWS = (
    Row("vector_put", "insert, replace and update with a vector index", vector_put),
    Row("unique_put", "insert, replace and update with a unique index", unique_put),
)
