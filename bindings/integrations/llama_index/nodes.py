"""Nodes of LlamaIndex as AmberDB stores them.

| field | value |
|---|---|
| `id`, `ref_doc_id` | ids of the node and of its document |
| `text`, `embedding` | as the node has them, the embedding as float32 |
| `metadata` | what filters read: the node's metadata, and `doc_id`, `document_id`, `ref_doc_id` |
| `node`, `node_type` | the rest of the node, as JSON |

Invariants:
- A node comes back equal, but for the embedding, which is left out or has numbers of float32.
"""

from typing import Any, Final

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.utils import (
    metadata_dict_to_node,  # pyright: ignore[reportUnknownVariableType]  # a dict without types
    node_to_metadata_dict,
)

import amberdb

WITHOUT_EMBEDDING: Final = ["id", "text", "node", "node_type"]


def stored(node: BaseNode) -> dict[str, Any]:
    """A node as AmberDB stores it."""
    metadata = node_to_metadata_dict(node, remove_text=True, flat_metadata=False)
    document = {
        "id": node.node_id,
        "text": node.get_content(metadata_mode=MetadataMode.NONE),
        "node": metadata.pop("_node_content"),
        "node_type": metadata.pop("_node_type"),
        "metadata": metadata,
    }
    if node.ref_doc_id is not None:
        document["ref_doc_id"] = node.ref_doc_id
    if node.embedding is not None:
        document["embedding"] = node.embedding
    return document


def loaded(document: amberdb.Document) -> BaseNode:
    """The node that was stored, with its embedding where the document has it."""
    parts = {"_node_content": document["node"], "_node_type": document["node_type"]}
    node = metadata_dict_to_node(parts, text=document["text"] or None)
    embedding = document.get("embedding")
    if embedding is not None:
        node.embedding = embedding.tolist()
    return node
