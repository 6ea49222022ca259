"""Export of a knowledge graph to networkx; export to and import from the MCP memory server's file.

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
from importlib import import_module
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, Final, TypeAlias

from amberdb import Document, DocumentError, QueryError, Transaction
from amberdb._jsonl.reader import (
    BAD_LINES_KEPT,
    BATCH_BYTES_MAX,
    BadLine,
    numbered_lines,
    open_input,
)
from amberdb._jsonl.text import dumps
from amberdb._shared.files import whole_file
from amberdb.graph.graph import KnowledgeGraph
from amberdb.graph.lines import (
    EntityLine,
    Line,
    RelationLine,
    entity_line,
    parsed,
    relation_line,
)
from amberdb.graph.relation import Told
from amberdb.graph.validity import AsOf

BATCH: Final = 500
_AGE_MAX_MS: Final = 86_400_000
_NODE: Final = ("entity_type", "observations", "properties")
_EDGE: Final = ("relation_type", "properties", "valid_from", "valid_to")

_Numbered: TypeAlias = tuple[int, bytes, Line]


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
        yield from map(entity_line, graph.snapshot_entities(at))
        last: dict[str, Any] | None = None
        for line in map(relation_line, graph.snapshot_relations(at, as_of)):
            if line != last:  # a relation with several validity intervals is written once
                yield line
            last = line


def _whole_lines(graph: KnowledgeGraph) -> Iterator[dict[str, Any]]:
    """The same lines with all other fields."""
    with graph.db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        for entity in graph.snapshot_entities(at):
            rest = _without(entity, ("id", "name", "entity_type", "observations"))
            yield {**entity_line(entity), "amberdb": rest}
        for relation in graph.snapshot_relations(at, "ever"):
            rest = _without(relation, ("source", "relation_type", "target"))
            yield {**relation_line(relation), "amberdb": rest}


def _without(document: Document, names: Sequence[str]) -> Document:
    return {name: value for name, value in document.items() if name not in names}


def _entities(stream: BinaryIO, waiting: IO[bytes], report: GraphReport) -> Iterator[_Numbered]:
    """Numbered lines with entities. Those with relations are appended to `waiting`; the others are
    reported."""
    for number, text in numbered_lines(stream):
        if not text.strip():
            continue
        try:
            line = parsed(text)
        except ValueError as error:
            report.reject(number, str(error))
            continue
        if isinstance(line, EntityLine):
            yield number, text, line
        else:
            waiting.write(b"%d %s\n" % (number, text.rstrip(b"\r\n")))


def _relations(waiting: IO[bytes]) -> Iterator[_Numbered]:
    for numbered in waiting:
        number, _, text = numbered.partition(b" ")
        yield int(number), text, parsed(text)


def _batches(lines: Iterator[_Numbered]) -> Iterator[list[tuple[int, Line]]]:
    batch: list[tuple[int, Line]] = []
    size = 0
    for number, text, line in lines:
        batch.append((number, line))
        size += len(text)
        if len(batch) >= BATCH or size >= BATCH_BYTES_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _stored(graph: KnowledgeGraph, batch: Sequence[tuple[int, Line]], report: GraphReport) -> int:
    """Adds lines to the graph, in one commit; how many were new. Those that the graph rejects are
    reported."""
    told = {
        number: line.told()
        for number, line in batch
        if isinstance(line, RelationLine) and line.document is None
    }
    told = dict(zip(told, graph.embedded(list(told.values())), strict=True))
    with graph.db.transaction() as tx:
        return sum([_is_stored(graph, tx, each, told, report) for each in batch])


def _is_stored(
    graph: KnowledgeGraph,
    tx: Transaction,
    numbered: tuple[int, Line],
    told: Mapping[int, Told],
    report: GraphReport,
) -> bool:
    number, line = numbered
    try:
        if isinstance(line, EntityLine):
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
