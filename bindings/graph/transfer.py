"""Export of a knowledge graph to networkx; export to and import from the MCP memory server's file.

    {"type": "entity", "name": ..., "entityType": ..., "observations": [...]}
    {"type": "relation", "from": ..., "to": ..., "relationType": ...}

Invariants:
- An export shows one snapshot, and its file appears whole or not at all.
- The file holds neither properties nor times: it has the relations valid at one time, each once.
- No line is skipped silently: the report counts it as stored, unchanged, or bad with the reason. An
  interrupted import can be run again.
- Memory holds one batch, however long the file.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, TypeAlias

import msgspec

from amberdb import Document, DocumentError, Transaction
from amberdb._jsonl.reader import (
    BAD_LINES_KEPT,
    BATCH_BYTES_MAX,
    BadLine,
    numbered_lines,
    open_input,
    parse_line,
)
from amberdb._shared.files import whole_file
from amberdb.graph.graph import AsOf, KnowledgeGraph

BATCH: Final = 500
_AGE_MAX_MS: Final = 86_400_000
_NODE: Final = ("entity_type", "observations", "properties")
_EDGE: Final = ("relation_type", "properties", "valid_from", "valid_to")


class _EntityLine(msgspec.Struct, tag_field="type", tag="entity"):
    name: str
    observations: list[str]
    entity_type: str = msgspec.field(name="entityType")


class _RelationLine(msgspec.Struct, tag_field="type", tag="relation"):
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    relation_type: str = msgspec.field(name="relationType")


_Line: TypeAlias = _EntityLine | _RelationLine


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
        for entity in at[graph.entities_name].documents():
            made.add_node(entity["name"], **_some(entity, _NODE))
        for relation in graph.snapshot_relations(at, as_of):
            ends = relation["source"], relation["target"]
            made.add_edge(*ends, key=relation["id"], **_some(relation, _EDGE))
    return made


def export_jsonl(
    graph: KnowledgeGraph, path: str | os.PathLike[str], *, as_of: AsOf = "now"
) -> int:
    """Writes entities and the relations valid as of a time; how many lines. Raises QueryError,
    OSError."""
    count = 0
    with whole_file(os.fspath(path)) as file:
        for line in _exported(graph, as_of):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


def import_jsonl(
    graph: KnowledgeGraph,
    path: str | os.PathLike[str],
    *,
    progress: Callable[[GraphReport], None] | None = None,
) -> GraphReport:
    """Adds the entities of a file, then its relations, in any order of their lines. The relations
    get no valid_from and valid_to. Raises OSError; InputDamagedError for a compressed file that
    ends early: import the whole file again."""
    report = GraphReport()
    for kind in (_EntityLine, _RelationLine):
        for batch in _batches(os.fspath(path), kind, report):
            with graph.db.transaction() as tx:
                stored = sum(
                    [_is_stored(graph, tx, number, line, report) for number, line in batch]
                )
            if kind is _EntityLine:
                report.entities += stored
            else:
                report.relations += stored
            if progress is not None:
                progress(report)
    report.broken.sort()
    return report


# -- inside ----------------------------------------------------------------------------------


def _some(document: Document, names: Sequence[str]) -> Document:
    return {name: document[name] for name in names}


def _exported(graph: KnowledgeGraph, as_of: AsOf) -> Iterator[dict[str, Any]]:
    with graph.db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        for entity in at[graph.entities_name].documents():
            yield {
                "type": "entity",
                "name": entity["name"],
                "entityType": entity["entity_type"],
                "observations": entity["observations"],
            }
        last: dict[str, Any] | None = None
        for relation in graph.snapshot_relations(at, as_of):
            line = {
                "type": "relation",
                "from": relation["source"],
                "to": relation["target"],
                "relationType": relation["relation_type"],
            }
            if line != last:  # a relation with several validity intervals is written once
                yield line
            last = line


def _batches(
    path: str, kind: type[_EntityLine] | type[_RelationLine], report: GraphReport
) -> Iterator[list[tuple[int, _Line]]]:
    """Numbered lines of one kind. Bad lines are reported while entities are read, the first
    pass."""
    batch: list[tuple[int, _Line]] = []
    size = 0
    with open_input(path) as source:
        for number, text in numbered_lines(source.stream):
            if not text.strip():
                continue
            try:
                line = _parsed(text)
            except ValueError as error:
                if kind is _EntityLine:
                    report.reject(number, str(error))
                continue
            if type(line) is not kind:
                continue
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
    except msgspec.ValidationError as error:
        raise ValueError(f"neither an entity nor a relation: {error}") from None
    return line


def _is_stored(
    graph: KnowledgeGraph, tx: Transaction, number: int, line: _Line, report: GraphReport
) -> bool:
    """Adds a line to the graph; whether it was new. A line that the graph rejects is reported."""
    try:
        if isinstance(line, _EntityLine):
            is_new = graph.put_entity(tx, line.name, line.entity_type, line.observations, {})
        else:
            ends = line.source, line.relation_type, line.target
            _, is_new = graph.put_relation(tx, *ends, {}, None, None)
    except DocumentError as error:
        report.reject(number, error.message)
        return False
    report.same += not is_new
    return is_new
