"""A knowledge graph of entities and relations with validity intervals: docs/graph.md."""

from amberdb.graph.graph import (
    AsOf,
    KnowledgeGraph,
    Relations,
)
from amberdb.graph.transfer import (
    GraphReport,
    export_jsonl,
    import_jsonl,
    to_networkx,
)
from amberdb.graph.walks import (
    Direction,
)

__all__ = [
    "AsOf",
    "KnowledgeGraph",
    "Relations",
    "GraphReport",
    "export_jsonl",
    "import_jsonl",
    "to_networkx",
    "Direction",
]
