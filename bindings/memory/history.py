"""History: the states of a memory, from its log entries, and what takes a change back.

    entry: insert   before None      after the memory     undone by its deletion
           update   before           after                undone by the state before
           delete   before           after None           undone by the memory, under its id

Invariants:
- Undo is a change like others: it has a log entry of its own, and can be undone.
- A change is undone only while the memory is in the state after it: what came later is not lost.
"""

from datetime import datetime
from typing import Any

from amberdb import ConflictError, Document, QueryError
from amberdb.memory.documents import state_of
from amberdb.memory.evidence import keys_of


def check_undoable(entry: Document) -> None:
    """Raises QueryError for an entry that changed nothing, or whose memory was forgotten."""
    if entry["action"] == "ignore":
        raise QueryError(f"the log entry {entry['id']!r} is of nothing that was stored")
    if entry.get("before") is None and entry.get("after") is None:
        raise QueryError(
            f"the log entry {entry['id']!r} has no state of its memory: it was forgotten, or "
            "logged by an older version"
        )


def check_unchanged(memory: Document | None, entry: Document) -> Document | None:
    """The memory of an entry as it is, None where it is deleted. Raises ConflictError when it is
    not as the entry left it."""
    state = None if memory is None else state_of(memory)
    if state != entry.get("after"):
        raise ConflictError(
            f"the memory {entry['memory_id']!r} was changed after the log entry {entry['id']!r}: "
            "undo the later changes first",
            collection=entry["memory_layer"],
            key=entry["memory_id"],
        )
    return memory


def brought_back(
    entry: Document, memory: Document | None, vector: Any, now: datetime, *, has_vectors: bool
) -> Document:
    """The memory in the state before an update or a deletion."""
    layer, before = entry["memory_layer"], entry["before"]
    kept = memory or {
        "id": entry["memory_id"],
        "memory_type": entry["memory_type"],
        "entity_id": entry["entity_id"],
        "embedding_id": entry["memory_id"] if has_vectors else None,
    }
    kept = {name: value for name, value in kept.items() if name != "embedding"}
    facts = keys_of(layer, before["content"])
    embedding = {} if vector is None else {"embedding": vector}
    return {**kept, **before, "updated_at": now, "facts": facts, **embedding}
