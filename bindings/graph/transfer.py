"""Export of a knowledge graph to networkx; export to and import from the MCP memory server's file.

    {"type": "entity", "name": ..., "entityType": ..., "observations": [...]}
    {"type": "relation", "from": ..., "to": ..., "relationType": ...}

A lossless export has one more key in each line: "amberdb", the other fields of what is stored.

Invariants:
- An export shows one snapshot, and its file appears whole or not at all.
- A file of the server holds neither properties nor times: it has the relations valid at one time,
  each once. A lossless one has all that is stored, but vectors, which an embedder makes again.
- No line is skipped silently: the report counts it as stored, unchanged, or bad with the reason. An
  interrupted import can be run again.
- The input is read once, so it may be a pipe. Memory holds one batch, however long the input;
  relations wait in a temporary file for the entities.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any, BinaryIO, Final, TypeAlias

import msgspec

from amberdb import Document, DocumentError, QueryError, Transaction
from amberdb._jsonl.reader import (
    BAD_LINES_KEPT,
    BATCH_BYTES_MAX,
    BadLine,
    numbered_lines,
    open_input,
    parse_line,
)
from amberdb._jsonl.text import dumps
from amberdb._shared.files import whole_file
from amberdb.graph.graph import KnowledgeGraph
from amberdb.graph.relations import Told
from amberdb.graph.validity import AsOf

BATCH: Final = 500
_AGE_MAX_MS: Final = 86_400_000
_NODE: Final = ("entity_type", "observations", "properties")
_EDGE: Final = ("relation_type", "properties", "valid_from", "valid_to")

_Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class _Record(msgspec.Struct):
    told_by: str | None
    observations: list[str] = []
    properties: list[str] = []


class _End(msgspec.Struct):
    valid_to: _Time
    ended_at: _Time | None = None
    ended_by: str | None = None


class _Entity(msgspec.Struct):
    """The other fields of an entity."""

    properties: dict[str, Any] = {}
    aliases: list[str] = []
    told_by: list[str | None] = msgspec.field(default_factory=lambda: [None])
    provenance: list[_Record] = []
    created_at: _Time | None = None
    updated_at: _Time | None = None


class _Relation(msgspec.Struct):
    """The other fields of a relation."""

    id: str
    fact: str | None = None
    properties: dict[str, Any] = {}
    valid_from: _Time | None = None
    valid_to: _Time | None = None
    told_at: _Time | None = None
    ended_at: _Time | None = None
    ended_by: str | None = None
    former_ends: list[_End] = []
    told_by: list[str | None] = msgspec.field(default_factory=lambda: [None])
    provenance: list[_Record] = []


class _EntityLine(msgspec.Struct, tag_field="type", tag="entity"):
    name: str
    observations: list[str]
    entity_type: str = msgspec.field(name="entityType")
    document: dict[str, Any] | None = msgspec.field(name="amberdb", default=None)

    def whole(self) -> Document:
        """The stored entity. Raises ValueError."""
        named = {"id": self.name, "name": self.name, "entity_type": self.entity_type}
        rest = _checked(self.document, _Entity)
        return {**named, "observations": self.observations, **rest}


class _RelationLine(msgspec.Struct, tag_field="type", tag="relation"):
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    relation_type: str = msgspec.field(name="relationType")
    document: dict[str, Any] | None = msgspec.field(name="amberdb", default=None)

    def told(self) -> Told:
        return Told(source=self.source, relation_type=self.relation_type, target=self.target)

    def whole(self) -> Document:
        """The stored relation. Raises ValueError."""
        ends = {"source": self.source, "relation_type": self.relation_type, "target": self.target}
        return {**ends, **_checked(self.document, _Relation)}


_Line: TypeAlias = _EntityLine | _RelationLine
_Numbered: TypeAlias = tuple[int, bytes, _Line]


@dataclass(slots=True)
class GraphReport:
    """What an import did with every line."""

    entities: int = 0
    """New entities, and those with new observations."""
    relations: int = 0
    same: int = 0
    """Lines that changed nothing."""
    bad: int = 0
    """Lines that were rejected."""
    broken: list[BadLine] = field(default_factory=list[BadLine])
    """The first BAD_LINES_KEPT of them."""

    def reject(self, number: int, reason: str) -> None:
        """Counts a bad line."""
        self.bad += 1
        if len(self.broken) < BAD_LINES_KEPT:
            self.broken.append(BadLine(number, reason))


def to_networkx(graph: KnowledgeGraph, *, as_of: AsOf = "now") -> Any:
    """A networkx.MultiDiGraph. Nodes are named by the entity and have entity_type, observations and
    properties; edges have the relation's id as key, and relation_type, properties, valid_from and
    valid_to. Needs the extra `graph`. Raises QueryError."""
    try:
        made: Any = import_module("networkx").MultiDiGraph()
    except ImportError:
        raise ImportError('to_networkx() needs networkx: pip install "amberdb[graph]"') from None
    with graph.db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        for entity in graph.snapshot_entities(at):
            made.add_node(entity["name"], **_some(entity, _NODE))
        for relation in graph.snapshot_relations(at, as_of):
            ends = relation["source"], relation["target"]
            made.add_edge(*ends, key=relation["id"], **_some(relation, _EDGE))
    return made


def export_jsonl(
    graph: KnowledgeGraph,
    path: str | os.PathLike[str],
    *,
    as_of: AsOf = "now",
    lossless: bool = False,
) -> int:
    """Writes entities and the relations valid as of a time; how many lines. With `lossless` all
    relations, and every field: import_jsonl() of it makes an equal graph. Raises QueryError,
    OSError."""
    if lossless and as_of != "now":
        raise QueryError("a lossless export has the relations of all times: omit as_of")
    count = 0
    with whole_file(os.fspath(path)) as file:
        for line in _whole_lines(graph) if lossless else _lines(graph, as_of):
            file.write(dumps(line) + "\n")
            count += 1
    return count


def import_jsonl(
    graph: KnowledgeGraph,
    path: str | os.PathLike[str],
    *,
    progress: Callable[[GraphReport], None] | None = None,
) -> GraphReport:
    """Adds the entities of a file, then its relations, in any order of their lines; "-" is standard
    input. Lines of a lossless export bring all their fields; others have no times, and leave a
    relation that is there as it is. Raises OSError; InputDamagedError for a compressed file that
    ends early: import the whole file again."""
    report = GraphReport()
    with SpooledTemporaryFile(max_size=BATCH_BYTES_MAX) as waiting:
        with open_input(os.fspath(path)) as source:
            for batch in _batches(_entities(source.stream, waiting, report)):
                report.entities += _stored(graph, batch, report)
                if progress is not None:
                    progress(report)
        waiting.seek(0)
        for batch in _batches(_relations(waiting)):
            report.relations += _stored(graph, batch, report)
            if progress is not None:
                progress(report)
    report.broken.sort()
    return report


# -- inside ----------------------------------------------------------------------------------


def _some(document: Document, names: Sequence[str]) -> Document:
    return {name: document[name] for name in names}


def _lines(graph: KnowledgeGraph, as_of: AsOf) -> Iterator[dict[str, Any]]:
    """The lines of the MCP memory server."""
    with graph.db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        yield from map(_entity_line, graph.snapshot_entities(at))
        last: dict[str, Any] | None = None
        for line in map(_relation_line, graph.snapshot_relations(at, as_of)):
            if line != last:  # a relation with several validity intervals is written once
                yield line
            last = line


def _whole_lines(graph: KnowledgeGraph) -> Iterator[dict[str, Any]]:
    """The same lines with all other fields."""
    with graph.db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        for entity in graph.snapshot_entities(at):
            rest = _without(entity, ("id", "name", "entity_type", "observations"))
            yield {**_entity_line(entity), "amberdb": rest}
        for relation in graph.snapshot_relations(at, "ever"):
            rest = _without(relation, ("source", "relation_type", "target"))
            yield {**_relation_line(relation), "amberdb": rest}


def _entity_line(entity: Document) -> dict[str, Any]:
    return {
        "type": "entity",
        "name": entity["name"],
        "entityType": entity["entity_type"],
        "observations": entity["observations"],
    }


def _relation_line(relation: Document) -> dict[str, Any]:
    return {
        "type": "relation",
        "from": relation["source"],
        "to": relation["target"],
        "relationType": relation["relation_type"],
    }


def _without(document: Document, names: Sequence[str]) -> Document:
    return {name: value for name, value in document.items() if name not in names}


def _entities(stream: BinaryIO, waiting: IO[bytes], report: GraphReport) -> Iterator[_Numbered]:
    """Numbered lines with entities. Those with relations are appended to `waiting`; the others are
    reported."""
    for number, text in numbered_lines(stream):
        if not text.strip():
            continue
        try:
            line = _parsed(text)
        except ValueError as error:
            report.reject(number, str(error))
            continue
        if isinstance(line, _EntityLine):
            yield number, text, line
        else:
            waiting.write(b"%d %s\n" % (number, text.rstrip(b"\r\n")))


def _relations(waiting: IO[bytes]) -> Iterator[_Numbered]:
    for numbered in waiting:
        number, _, text = numbered.partition(b" ")
        yield int(number), text, _parsed(text)


def _batches(lines: Iterator[_Numbered]) -> Iterator[list[tuple[int, _Line]]]:
    batch: list[tuple[int, _Line]] = []
    size = 0
    for number, text, line in lines:
        batch.append((number, line))
        size += len(text)
        if len(batch) >= BATCH or size >= BATCH_BYTES_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parsed(text: bytes) -> _Line:
    """Raises ValueError."""
    value = parse_line(text)
    try:
        line: _Line = msgspec.convert(value, _Line)
        if line.document is not None:
            line.whole()
    except msgspec.ValidationError as error:
        raise ValueError(f"neither an entity nor a relation: {error}") from None
    return line


def _checked(document: dict[str, Any] | None, kind: type[_Entity | _Relation]) -> Document:
    """The other fields of a line, with defaults. Raises ValueError."""
    fields = msgspec.to_builtins(msgspec.convert(document, kind), builtin_types=(datetime,))
    return {**(document or {}), **fields}


def _stored(graph: KnowledgeGraph, batch: Sequence[tuple[int, _Line]], report: GraphReport) -> int:
    """Adds lines to the graph, in one commit; how many were new. Those that the graph rejects are
    reported."""
    told = {
        number: line.told()
        for number, line in batch
        if isinstance(line, _RelationLine) and line.document is None
    }
    told = dict(zip(told, graph.embedded(list(told.values())), strict=True))
    with graph.db.transaction() as tx:
        return sum([_is_stored(graph, tx, each, told, report) for each in batch])


def _is_stored(
    graph: KnowledgeGraph,
    tx: Transaction,
    numbered: tuple[int, _Line],
    told: Mapping[int, Told],
    report: GraphReport,
) -> bool:
    number, line = numbered
    try:
        if isinstance(line, _EntityLine):
            given = line.name, line.entity_type, line.observations
            is_new = (
                graph.put_entity(tx, *given, {})
                if line.document is None
                else graph.restore_entity(tx, line.whole())
            )
        elif line.document is None:
            is_new = graph.put_relation(tx, told[number], only_new=True)[1]
        else:
            is_new = graph.restore_relation(tx, line.whole())
    except DocumentError as error:
        report.reject(number, error.message)
        return False
    report.same += not is_new
    return is_new
