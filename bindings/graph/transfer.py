"""A knowledge graph in and out: networkx, and the file of the MCP memory server.

    {"type": "entity", "name": ..., "entityType": ..., "observations": [...]}
    {"type": "relation", "from": ..., "to": ..., "relationType": ...}

Invariants:
- An export is of one moment, and its file is whole or not there.
- The file has no place for properties and for times: relations are those valid at one time, each
  written once.
- No line is skipped in silence: it is stored, the same already, or counted with the reason. An
  import that was interrupted is run again.
- Memory holds one batch, however long the file.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, cast

from amberdb import Document, DocumentError, Transaction
from amberdb._jsonl.exporter import whole_file
from amberdb._jsonl.importer import (
    BAD_LINES_KEPT,
    BATCH_BYTES_MAX,
    LINE_BYTES_MAX,
    BadLine,
    numbered_lines,
    open_input,
)
from amberdb._jsonl.text import loads
from amberdb.graph.graph import AsOf, KnowledgeGraph

BATCH: Final = 500
_AGE_MAX_MS: Final = 86_400_000
_NODE: Final = ("entity_type", "observations", "properties")
_EDGE: Final = ("relation_type", "properties", "valid_from", "valid_to")
_WANTED: Final = {
    "entity": ("name", "entityType", "observations"),
    "relation": ("from", "to", "relationType"),
}


@dataclass(slots=True)
class GraphReport:
    """What became of every line."""

    entities: int = 0
    """New, or with something new."""
    relations: int = 0
    same: int = 0
    """There already."""
    bad: int = 0
    """Lines that could not be stored."""
    broken: list[BadLine] = field(default_factory=list[BadLine])
    """The first hundred of them that were met, and why."""

    def refuse(self, number: int, reason: str) -> None:
        """Notes a line."""
        self.bad += 1
        if len(self.broken) < BAD_LINES_KEPT:
            self.broken.append(BadLine(number, reason))


def to_networkx(graph: KnowledgeGraph, *, as_of: AsOf = "now") -> Any:
    """A networkx.MultiDiGraph: nodes by name, with their entity_type, observations and properties;
    edges by relation id, with relation_type, properties, valid_from and valid_to. Needs the extra
    `graph`. Raises QueryError."""
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
    """How many lines. Raises QueryError, OSError."""
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
    """Adds what the file has to the graph: entities, then relations, wherever their lines are.
    Relations are those without times. Raises OSError, as InputDamagedError for a packed file that
    ends too early; run it again with a whole one."""
    report = GraphReport()
    for kind in ("entity", "relation"):
        for batch in _batches(os.fspath(path), kind, report):
            with graph.db.transaction() as tx:
                done = [_stored(graph, tx, number, line, report) for number, line in batch]
            stored = sum(done)
            report.entities += stored if kind == "entity" else 0
            report.relations += stored if kind == "relation" else 0
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
            if line != last:  # one that holds for several spans of time is told once
                yield line
            last = line


def _batches(
    path: str, kind: str, report: GraphReport
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """The lines of one kind; broken ones are noted when entities are asked for."""
    batch: list[tuple[int, dict[str, Any]]] = []
    size = 0
    with open_input(path) as source:
        for number, text in numbered_lines(source.stream):
            if not text.strip():
                continue
            try:
                line = _parsed(text)
            except ValueError as error:
                if kind == "entity":
                    report.refuse(number, str(error))
                continue
            if line["type"] != kind:
                continue
            batch.append((number, line))
            size += len(text)
            if len(batch) >= BATCH or size >= BATCH_BYTES_MAX:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _parsed(text: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    if len(text) > LINE_BYTES_MAX:
        raise ValueError(f"longer than {LINE_BYTES_MAX} bytes")
    line: Any = loads(text)
    kind: Any = cast(dict[str, Any], line).get("type") if type(line) is dict else None
    if not isinstance(kind, str) or kind not in _WANTED:
        raise ValueError('neither a map with "type": "entity" nor one with "type": "relation"')
    found = cast(dict[str, Any], line)
    for name in _WANTED[kind]:
        wanted = list if name == "observations" else str
        if not isinstance(found.get(name), wanted):
            raise ValueError(f"{name!r} of this {kind} is no {wanted.__name__}")
    return found


def _stored(
    graph: KnowledgeGraph, tx: Transaction, number: int, line: Document, report: GraphReport
) -> bool:
    try:
        if line["type"] == "entity":
            is_new = graph.put_entity(
                tx, line["name"], line["entityType"], line["observations"], {}
            )
        else:
            given = line["from"], line["relationType"], line["to"]
            _, is_new = graph.put_relation(tx, *given, {}, None, None)
    except DocumentError as error:
        report.refuse(number, error.message)
        return False
    report.same += not is_new
    return is_new
