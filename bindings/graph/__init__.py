"""A knowledge graph of entities and relations with validity intervals: docs/graph.md."""

from amberdb.graph.graph import (
    KnowledgeGraph,
)
from amberdb.graph.pages import (
    Relations,
)
from amberdb.graph.provenance import (
    ForgottenSource,
)
from amberdb.graph.transfer import (
    GraphReport,
    export_jsonl,
    import_jsonl,
    to_networkx,
)
from amberdb.graph.validity import (
    AsOf,
)
from amberdb.graph.walks import (
    Direction,
)

__all__ = [
    "AsOf",
    "KnowledgeGraph",
    "ForgottenSource",
    "Relations",
    "GraphReport",
    "export_jsonl",
    "import_jsonl",
    "to_networkx",
    "Direction",
]
