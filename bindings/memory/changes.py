"""Changes of memories: decisions and undone log entries, each applied with its entry of the log.

    decisions -> vectors, from the embedder -> one transaction: settled by what is committed,
                                               applied, logged

Invariants:
- A change and its log entry are one commit.
- The embedder runs outside transactions. Within the caller's own transaction it does not run: the
  memory gets its vector later.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, final

from amberdb import Database, Document, MissingKeyError, Transaction
from amberdb._shared.clock import SteadyClock
from amberdb._shared.embedder import Embedder
from amberdb._shared.systems import in_transaction
from amberdb.memory.documents import Documents
from amberdb.memory.evidence import keys_of, settled
from amberdb.memory.history import brought_back, check_unchanged, check_undoable
from amberdb.memory.layers import Layers
from amberdb.memory.types import Action, Decision, Layer, MemoryType, Outcome

_STORES: Final = frozenset({"insert", "update"})


class Owner(NamedTuple):
    """Whose memories: those of one user, or of one agent."""

    memory_type: MemoryType
    entity_id: str

    def where(self) -> dict[str, Any]:
        """A filter for the memories and the log entries."""
        return {"memory_type": self.memory_type, "entity_id": self.entity_id}


@final
class Changes:
    """Applies changes to the collections of one Memory."""

    def __init__(
        self,
        db: Database,
        layers: Layers,
        documents: Documents,
        embedder: Embedder,
        clock: SteadyClock,
    ) -> None:
        self._db = db
        self.layers = layers
        self.documents = documents
        self._embedder = embedder
        self.clock = clock

    def apply(
        self,
        decisions: Sequence[tuple[Owner, Decision] | tuple[None, Decision]],
        *,
        extracted: bool = False,
        tx: Transaction | None = None,
    ) -> list[Outcome]:
        """Applies checked decisions in one commit. One without an owner is about a memory of any.
        Those that an extractor has made are settled by what is committed, which may have changed
        since it was asked. Raises MissingKeyError, DuplicateKeyError."""
        texts = [each.content if each.action in _STORES else None for _, each in decisions]
        vectors = self._vectors(texts, tx)
        now = self.clock()

        def applied(tx: Transaction) -> list[Outcome]:
            outcomes: list[Outcome] = []
            if extracted:
                owners = {owner for owner, _ in decisions if owner is not None}
                tx.lock(*(f"{self.layers.log}/{'/'.join(owner)}" for owner in owners))
            for (owner, decision), vector in zip(decisions, vectors, strict=True):
                if extracted and owner is not None:
                    decision = settled(decision, _Owned(tx, self.layers, owner), now)
                outcomes.append(self._applied(tx, owner, decision, vector, now))
            return outcomes

        return in_transaction(self._db, tx, applied)

    def keep(self, tx: Transaction, layer: Layer, memory: Document, reason: str | None) -> None:
        """Stores a memory of another program as it is; its vector follows later. It is logged where
        it takes the place of a memory, and otherwise with a reason. Raises DocumentError."""
        memories = tx[self.layers[layer]]
        memory_id: str = memory["id"]
        before = memories.get(memory_id)
        after: Document = {
            **memory,
            "embedding_id": memory_id if self._embedder else None,
            "facts": keys_of(layer, memory["content"]),
        }
        memories.put(after)
        if before is not None or reason is not None:
            action: Action = "insert" if before is None else "update"
            decision = Decision(action=action, memory_layer=layer, reason=reason or "imported")
            self._logged(tx, owner_of(after), memory_id, decision, self.clock(), before, after)

    def undo(self, log_id: str, reason: str | None, tx: Transaction | None) -> Outcome:
        """Raises MissingKeyError, QueryError, ConflictError."""
        entry = self._entry(log_id, tx)
        check_undoable(entry)
        before = entry.get("before")
        (vector,) = self._vectors([None if before is None else before["content"]], tx)
        now = self.clock()
        layer, memory_id = entry["memory_layer"], entry["memory_id"]

        def undone(tx: Transaction) -> Outcome:
            memories = tx[self.layers[layer]]
            memory = check_unchanged(memories.get(memory_id), entry)
            after: Document | None = None
            action: Action = "delete"
            if before is None:
                memories.delete(memory_id)
            else:
                action = "insert" if memory is None else "update"
                has_vectors = bool(self._embedder)
                after = brought_back(entry, memory, vector, now, has_vectors=has_vectors)
                memories.put(after)
            decision = Decision(
                action=action, memory_layer=layer, reason=reason or f"undo of {log_id}"
            )
            owner = Owner(entry["memory_type"], entry["entity_id"])
            return self._logged(tx, owner, memory_id, decision, now, memory, after)

        return in_transaction(self._db, tx, undone)

    def _entry(self, log_id: str, tx: Transaction | None) -> Document:
        """Raises MissingKeyError."""
        if tx is None:
            return self._db.collection(self.layers.log)[log_id]
        self._db.check_transaction(tx)
        return tx[self.layers.log][log_id]

    def _vectors(self, texts: Sequence[str | None], tx: Transaction | None) -> list[Any]:
        return self._embedder.vectors(texts) if tx is None else [None] * len(texts)

    def _applied(
        self, tx: Transaction, owner: Owner | None, decision: Decision, vector: Any, now: datetime
    ) -> Outcome:
        """Applies one decision in a transaction, with its log entry."""
        layer, action = decision.memory_layer, decision.action
        memories = tx[self.layers[layer]]
        memory_id = decision.memory_id or ""
        before: Document | None = None
        after: Document | None = None
        if action == "insert":
            assert owner is not None
            after = self.documents.new(owner.memory_type, owner.entity_id, decision, vector, now)
            memory_id = memories.insert(after)
        elif action != "ignore":
            before = memories.get(memory_id)
            if before is None or (owner is not None and owner != owner_of(before)):
                raise _missing(layer, memory_id)
            owner = owner_of(before)
            if action == "delete":
                memories.delete(memory_id)
            else:
                memories.update(memory_id, self.documents.patch(before, decision, vector, now))
                after = memories[memory_id]
        assert owner is not None
        return self._logged(tx, owner, memory_id, decision, now, before, after)

    def _logged(
        self,
        tx: Transaction,
        owner: Owner,
        memory_id: str,
        decision: Decision,
        now: datetime,
        before: Document | None,
        after: Document | None,
    ) -> Outcome:
        entry = self.documents.entry(
            owner.memory_type, owner.entity_id, memory_id, decision, now, before=before, after=after
        )
        log_id = self.layers.log_entry(tx, entry)
        return Outcome(decision.action, decision.memory_layer, memory_id, entry["reason"], log_id)


@final
class _Owned:
    """The memories of one owner, as a transaction sees them."""

    def __init__(self, tx: Transaction, layers: Layers, owner: Owner) -> None:
        self._tx = tx
        self._layers = layers
        self._owner = owner

    def having(self, layer: Layer, key: str) -> Sequence[Document]:
        where = {**self._owner.where(), "facts": key}  # $contains would use no index
        return self._tx[self._layers[layer]].find(where)

    def has(self, layer: Layer, memory_id: str) -> bool:
        memory = self._tx[self._layers[layer]].get(memory_id)
        return memory is not None and owner_of(memory) == self._owner


def owner_of(memory: Document) -> Owner:
    return Owner(memory["memory_type"], memory["entity_id"])


def _missing(layer: Layer, memory_id: str) -> MissingKeyError:
    return MissingKeyError(
        f"the {layer} layer has no memory {memory_id!r}", collection=layer, key=memory_id
    )
