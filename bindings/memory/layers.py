"""The collections of layered memory: one for each layer, and the log.

Invariants:
- Entries of the log are in the order in which they were made, by `position`, whatever the clock
  does: its microseconds, but above every position before. Where transactions run side by side,
  that is so for the entries of one memory.
"""

from datetime import datetime
from functools import partial
from typing import Any, Final, final

from amberdb import Database, Document, IndexSpec, Ordered, Text, Transaction
from amberdb._shared.embedder import Embedder
from amberdb._shared.systems import prefixed
from amberdb.memory.documents import check_layer, with_facts
from amberdb.memory.types import LAYERS, Layer

_OWNER: Final = ("memory_type", "entity_id")
_ORDER: Final[dict[Layer, str]] = {"profile": "updated_at", "event": "created_at"}


@final
class Layers:
    """The names of the collections of one Memory."""

    def __init__(self, name: str | None) -> None:
        self._names: dict[Layer, str] = {layer: prefixed(name, layer) for layer in LAYERS}
        self.log = prefixed(name, "log")

    def __getitem__(self, layer: Layer) -> str:
        """The collection of a layer. Raises QueryError."""
        check_layer(layer)
        return self._names[layer]

    def declare(self, db: Database, embedder: Embedder) -> None:
        """Raises CollectionError."""
        for layer, name in self._names.items():
            order = _ORDER[layer]
            embedder.declare(
                db,
                name,
                owner="memory",
                indexes=[
                    Ordered(*_OWNER, order),
                    Ordered(*_OWNER, "category", order),
                    Ordered(*_OWNER, "facts", sparse=True),
                    Ordered(*_OWNER, "expiry_date", sparse=True),
                    Ordered("created_at"),
                    Text("content"),
                ],
                expires_at="expiry_date",
                required={"entity_id": str, "content": str, "memory_type": str},
                version=2,
                migrate={2: partial(with_facts, layer)},
            )
        by: list[tuple[str, ...]] = [("memory_id",), ("memory_layer",), ("action",), _OWNER, ()]
        entries: list[IndexSpec] = [Ordered(*fields, "position") for fields in by]
        db.collection(
            self.log,
            owner="memory",
            indexes=[*entries, Ordered("created_at")],
            expires_at="expiry_date",
            version=2,
            migrate={2: _with_position},
        )

    def log_entry(self, tx: Transaction, entry: Document) -> str:
        """Stores an entry at the end of the log; its id."""
        log = tx[self.log]
        # Other memories may have entries that are not committed; this one is held.
        where = None if tx.runs_alone else {"memory_id": entry["memory_id"]}
        last: Any = log.max("position", where)
        position = max(micros(entry["created_at"]), 0 if last is None else last + 1)
        return log.put({**entry, "position": position})


def _with_position(entry: Document) -> Document:
    """An entry of before they had positions."""
    time: Any = entry.get("created_at")
    return {**entry, "position": micros(time) if isinstance(time, datetime) else 0}


def micros(time: datetime) -> int:
    """The position of a log entry of a time, unless others have it."""
    return int(time.timestamp() * 1_000_000)
