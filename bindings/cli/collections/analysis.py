"""The command analyze: what the documents of a collection hold, field by field.

    documents  ->  for each path: types, how many have it, distinct values, examples

Invariants:
- Memory does not grow with the collection: of more than --sample documents as many are read, spread
  evenly over the ids, and the output says so; PATHS_MAX paths and DISTINCT_MAX values of each are
  told apart.
- A value is in the output only as an example; examples are cut to EXAMPLE_CHARS.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, cast

import typer

from amberdb import Document, ReadableCollection, Where
from amberdb._shared.queries import all_pages
from amberdb.cli.arguments import (
    COUNT_MAX,
    AsJson,
    CollectionName,
    DatabasePath,
    FilterJson,
    OutputFormat,
    parse_where,
)
from amberdb.cli.bars import progress_bar
from amberdb.cli.columns import flat
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.output import emit
from amberdb.cli.verb import opened_read_only, say, verb

PATHS_MAX: Final = 1000
DISTINCT_MAX: Final = 1000
EXAMPLES: Final = 3
EXAMPLE_CHARS: Final = 60
BATCH: Final = 500
_AGE_MAX_MS: Final = 7 * 86_400_000


@verb
def analyze(
    path: DatabasePath,
    collection: CollectionName,
    where: FilterJson = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            min=1,
            max=COUNT_MAX,
            metavar="N",
            help="Read so many documents at most, evenly spread over the ids.",
        ),
    ] = 10_000,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Shows what the documents hold, field by field. Of each field: its types, the share of
    documents that have it, its distinct values (1000+: more than are told apart), and examples."""
    query, kind = parse_where(where), chosen(format, as_json)
    found = _Found()
    with (
        opened_read_only(path) as db,
        progress_bar() as bar,
        db.snapshot(max_age_ms=_AGE_MAX_MS) as at,
    ):
        source = at[collection]
        total = source.count(query)
        task = bar.add_task("documents", total=min(total, sample))
        for document in _sampled(source, query, total, sample):
            found.add(document)
            if not found.documents % BATCH:
                bar.update(task, completed=found.documents)
    rows = [each.row(found.documents) for each in found.fields.values()]
    if kind == "json":
        emit({"documents": total, "read": found.documents, "fields": rows})
        return
    if rows:
        show_rows(collection, list(rows[0]), rows, kind)
    if found.documents < total:
        say(f"a sample: {found.documents:,} of {total:,} documents (--sample)")
    if found.is_cut:
        say(f"more than {PATHS_MAX} fields: the others are left out")


# -- inside --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Field:
    name: str
    types: dict[str, int] = field(default_factory=dict[str, int])
    count: int = 0
    """Documents that have the field, with a value that is not null."""
    distinct: set[str] = field(default_factory=set[str])
    examples: list[str] = field(default_factory=list[str])

    def add(self, value: Any) -> None:
        kind = _type_of(value)
        self.types[kind] = self.types.get(kind, 0) + 1
        if value is None:
            return
        self.count += 1
        if kind in ("map", "vector") or len(self.distinct) > DISTINCT_MAX:
            return
        text = flat(value)
        if text not in self.distinct:
            self.distinct.add(text if len(text) < 100 else f"{hash(text)}")
            if len(self.examples) < EXAMPLES:
                cut = len(text) > EXAMPLE_CHARS
                self.examples.append(text[: EXAMPLE_CHARS - 3] + "..." if cut else text)

    def row(self, documents: int) -> dict[str, Any]:
        distinct: int | str | None = len(self.distinct)
        if len(self.distinct) > DISTINCT_MAX:
            distinct = f"{DISTINCT_MAX}+"
        is_told = bool(self.types.keys() - {"map", "vector", "null"})
        return {
            "field": self.name,
            "types": " ".join(f"{kind}:{count}" for kind, count in sorted(self.types.items())),
            "filled": f"{self.count / documents:.1%}",
            "distinct": distinct if is_told else None,
            "examples": " | ".join(self.examples),
        }


class _Found:
    """The fields of the documents that were read."""

    def __init__(self) -> None:
        self.documents = 0
        self.fields: dict[str, _Field] = {}
        self.is_cut = False

    def add(self, document: Document) -> None:
        self.documents += 1
        self._add("", document)

    def _add(self, before: str, values: Document) -> None:
        for name, value in values.items():
            path = f"{before}{name}"
            known = self.fields.get(path)
            if known is None:
                if len(self.fields) == PATHS_MAX:
                    self.is_cut = True
                    continue
                known = self.fields[path] = _Field(path)
            known.add(value)
            if type(value) is dict:
                self._add(f"{path}.", cast(Document, value))


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "map"
    if isinstance(value, list):
        kinds = {_type_of(each) for each in cast(Sequence[Any], value)}
        return f"list<{kinds.pop()}>" if len(kinds) == 1 else "list"
    if isinstance(value, datetime):
        return "date"
    if hasattr(value, "shape"):
        return "vector"
    return type(value).__name__


def _sampled(
    source: ReadableCollection, where: Where | None, total: int, sample: int
) -> Iterator[Document]:
    """All documents that match, or as many of them as the sample has."""
    if total <= sample:
        yield from source.documents() if where is None else _in_batches(source, _ids(source, where))
        return
    ids = enumerate(_ids(source, where))
    wanted = (id for number, id in ids if number * sample % total < sample)
    yield from _in_batches(source, wanted)


def _ids(source: ReadableCollection, where: Where | None) -> Iterator[str]:
    if where is None:
        return iter(source)
    found = all_pages(source.find, where, limit=BATCH, order_by="id", fields=["id"])
    return (each["id"] for each in found)


def _in_batches(source: ReadableCollection, ids: Iterator[str]) -> Iterator[Document]:
    batch: list[str] = []
    for id in ids:
        batch.append(id)
        if len(batch) == BATCH:
            yield from (each for each in source.get_many(batch) if each is not None)
            batch.clear()
    yield from (each for each in source.get_many(batch) if each is not None)
