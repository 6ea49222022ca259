"""Layered memory: long-lived facts about an entity, events, and a log of every change.

    profile   long-lived facts     by (memory_type, entity_id, updated_at)
    event     events that expire   by (memory_type, entity_id, created_at)
    log       insert, update, ignore, delete, each with a reason

Invariants:
- A change and its log entry are one commit.
- Models are called outside transactions, so a slow embedder or extractor blocks no other writer.
  When an extractor fails, nothing is stored. When an embedder fails, the memory is stored and gets
  its vector later.
- No read returns a forgotten memory: its log entries lose entity, reason and metadata.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any, Final, final, overload

from amberdb import (
    Database,
    Document,
    Embed,
    ExtractionError,
    FieldPath,
    Fusion,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Page,
    QueryError,
    Text,
    Transaction,
    Vector,
)
from amberdb._shared.checks import check_embedder, check_text
from amberdb._shared.clock import SteadyClock
from amberdb._shared.queries import between, having
from amberdb._shared.search_input import asked, embed_texts
from amberdb.memory.documents import (
    FIELDS,
    Documents,
    check_layer,
    check_owner,
    forgotten,
    with_facts,
)
from amberdb.memory.evidence import settled
from amberdb.memory.history import brought_back, check_unchanged, check_undoable
from amberdb.memory.recall import recall
from amberdb.memory.recall_page import RecallPage
from amberdb.memory.types import (
    CATEGORIES,
    LAYERS,
    Action,
    Decision,
    Extractor,
    Forgotten,
    Known,
    Layer,
    MemoryType,
    Outcome,
    Retention,
)

_STORES: Final = frozenset({"insert", "update"})
KNOWN_MAX: Final = 50
"""The most recent memories of each layer that an extractor gets."""


@final
class Memory:
    """Layered memory over an open database; threads may share it.

    embed, dim   list of str -> array of shape (n, dim), for vector search of memories
    fusion       how full-text and vector hits are fused; its weights are for the fields "content"
                 and "embedding"
    extract      function from a text to decisions, for remember(auto_extract=True)
    retention    how long each layer is kept
    categories   additional categories, by layer
    clock        function that returns epoch seconds

    Raises CollectionError.
    """

    def __init__(
        self,
        db: Database,
        *,
        embed: Embed | None = None,
        dim: int | None = None,
        fusion: Fusion | None = None,
        extract: Extractor | None = None,
        retention: Retention | None = None,
        categories: Mapping[Layer, Iterable[str]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_embedder(embed, dim)
        self.db = db
        self._embed = embed
        self._fusion = fusion or Fusion()
        self._extract = extract
        self._clock = SteadyClock(clock)
        more = categories or {}
        self._documents = Documents(
            retention or Retention(),
            {layer: {*CATEGORIES[layer], *more.get(layer, ())} for layer in LAYERS},
            has_vectors=embed is not None,
        )
        self._declare(dim)

    # -- writing -----------------------------------------------------------------------------

    def remember(
        self,
        entity_id: str,
        content: str,
        *,
        memory_type: MemoryType = "user",
        memory_layer: Layer | None = None,
        auto_extract: bool = False,
        category: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        is_permanent: bool | None = None,
        expiry_date: datetime | None = None,
        reason: str | None = None,
    ) -> list[Outcome]:
        """Stores a memory in a layer, or with `auto_extract` applies the extractor's decisions;
        what is given here is of all memories that they store.

        An event that is not permanent expires at `expiry_date` or after the retention of its layer.
        Raises InvalidDocumentError, QueryError, ExtractionError; then nothing was stored.
        """
        check_owner(memory_type, entity_id)
        check_text("content", content)
        if auto_extract:
            if memory_layer is not None:
                raise QueryError("auto_extract chooses the layer: omit memory_layer")
            decisions = [
                self._documents.given(
                    decision,
                    category=category,
                    metadata=metadata,
                    is_permanent=is_permanent,
                    expiry_date=expiry_date,
                    reason=reason,
                )
                for decision in self._extracted(memory_type, entity_id, content)
            ]
            for decision in decisions:
                self._documents.check(decision)
            return self._apply(entity_id, decisions, memory_type, extracted=True)
        if memory_layer is None:
            raise QueryError('give memory_layer="profile" or "event", or auto_extract=True')
        decision = Decision(
            action="insert",
            memory_layer=memory_layer,
            reason=reason or "",
            content=content,
            category=category,
            is_permanent=is_permanent,
            expiry_date=expiry_date,
            metadata=metadata or {},
        )
        return self.apply(entity_id, [decision], memory_type=memory_type)

    def apply(
        self, entity_id: str, decisions: Sequence[Decision], *, memory_type: MemoryType = "user"
    ) -> list[Outcome]:
        """Applies decisions and writes their log entries, in one commit: all or none. Raises
        InvalidDocumentError, and MissingKeyError for a memory that this entity does not have."""
        check_owner(memory_type, entity_id)
        for decision in decisions:
            self._documents.check(decision)
        return self._apply(entity_id, decisions, memory_type, extracted=False)

    def update(
        self,
        memory_layer: Layer,
        memory_id: str,
        *,
        content: str | None = None,
        reason: str | None = None,
        category: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        is_permanent: bool | None = None,
        expiry_date: datetime | None = None,
    ) -> Outcome:
        """Changes the given fields of a memory. Metadata is merged, and {} empties it. Raises
        MissingKeyError, InvalidDocumentError."""
        return self._one(
            memory_layer,
            memory_id,
            Decision(
                action="update",
                memory_layer=memory_layer,
                reason=reason or "",
                content=content,
                memory_id=memory_id,
                category=category,
                is_permanent=is_permanent,
                expiry_date=expiry_date,
                metadata=metadata or {},
            ),
        )

    def delete(self, memory_layer: Layer, memory_id: str, *, reason: str | None = None) -> Outcome:
        """Deletes a memory; its log stays readable. Raises MissingKeyError."""
        decision = Decision(
            action="delete", memory_layer=memory_layer, reason=reason or "", memory_id=memory_id
        )
        return self._one(memory_layer, memory_id, decision)

    def undo(self, log_id: str, *, reason: str | None = None) -> Outcome:
        """Takes the change of a log entry back: an insert is deleted, an update or a deletion is as
        before. Raises MissingKeyError for an unknown entry, QueryError for one that changed
        nothing, ConflictError when the memory was changed since."""
        entry = self.db.collection("log")[log_id]
        check_undoable(entry)
        before = entry["before"]
        (vector,) = embed_texts(self._embed, [None if before is None else before["content"]])
        now = self._now()
        layer, memory_id = entry["memory_layer"], entry["memory_id"]
        with self.db.transaction() as tx:
            memory = check_unchanged(tx, entry)
            after: Document | None = None
            action: Action = "delete"
            if before is None:
                tx[layer].delete(memory_id)
            else:
                action = "insert" if memory is None else "update"
                after = brought_back(
                    entry, memory, vector, now, has_vectors=self._embed is not None
                )
                tx[layer].put(after)
            decision = Decision(
                action=action, memory_layer=layer, reason=reason or f"undo of {log_id}"
            )
            undone = self._documents.entry(
                entry["memory_type"],
                entry["entity_id"],
                memory_id,
                decision,
                now,
                before=memory,
                after=after,
            )
            return Outcome(action, layer, memory_id, undone["reason"], tx["log"].put(undone))

    def forget(
        self,
        entity_id: str,
        *,
        memory_type: MemoryType = "user",
        compact: bool = True,
    ) -> Forgotten:
        """Deletes the memories of an entity in both layers, and erases entity, reason and metadata
        of its log entries, in one commit; a receipt. With `compact` the database is compacted, so
        no file of its directory holds the deleted bytes when this returns."""
        check_owner(memory_type, entity_id)
        owned = {"memory_type": memory_type, "entity_id": entity_id}
        now = self._now()
        with self.db.transaction() as tx:
            profile, events = (tx[layer].delete_many(owned) for layer in LAYERS)
            entries = tx["log"].find(owned, limit=None)
            tx["log"].put_many(forgotten(entry, now) for entry in entries)
        if compact:
            self.db.compact()
        return Forgotten(profile, events, len(entries), tx.lsn, now, compact)

    # -- reading -----------------------------------------------------------------------------

    def get(self, memory_layer: Layer, memory_id: str) -> Document | None:
        """A whole memory, or None."""
        check_layer(memory_layer)
        memory: Document | None = self.db.collection(memory_layer).get(memory_id)
        if memory is not None:
            memory.pop("facts", None)
        return memory

    def profile(
        self,
        entity_id: str,
        *,
        memory_type: MemoryType = "user",
        category: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page:
        """Facts about an entity, the last changed first."""
        where = _where(memory_type, entity_id, category)
        return self.db.collection("profile").find(
            where, order_by="-updated_at", limit=limit, after=after, fields=FIELDS
        )

    def events(
        self,
        entity_id: str,
        *,
        memory_type: MemoryType = "user",
        limit: int = 50,
        since: datetime | None = None,
        until: datetime | None = None,
        expiring_before: datetime | None = None,
        category: str | None = None,
        after: str | None = None,
    ) -> Page:
        """Events of an entity with `since <= created_at < until`, the newest first;
        `expiring_before` are those that expire before a time."""
        where = _where(memory_type, entity_id, category)
        where |= between("created_at", since, until) | between("expiry_date", None, expiring_before)
        return self.db.collection("event").find(
            where, order_by="-created_at", limit=limit, after=after, fields=FIELDS
        )

    def recall(
        self,
        text: str | None = None,
        *,
        query: str | None = None,
        entity_id: str | None = None,
        memory_type: MemoryType = "user",
        layers: Sequence[Layer] = LAYERS,
        limit: int = 10,
        where: Mapping[str, Any] | None = None,
        neighbors: bool = False,
        group_by: FieldPath | None = None,
        after: str | None = None,
    ) -> RecallPage:
        """Full-text and, with an embedder, vector search of memories by the words of a text, the
        best first: those of one entity, or of all. `query` in place of a text is in the query
        language, and full-text only. `where` is an additional filter. With `neighbors` an event is
        ranked with the events before and after it, for events that are turns of a conversation.
        With `group_by` only the best memory of each value of a field is found, of each entity for
        one. `after` continues a page: page.cursor. Raises QueryError, CursorError."""
        search = asked(text, query)
        scope = having(memory_type=memory_type, entity_id=entity_id)
        if where is not None:
            scope = {"$and": [scope, where]}
        for layer in layers:
            check_layer(layer)
        (vector,) = embed_texts(self._embed, [text])
        return recall(
            self.db,
            search,
            vector,
            layers=list(dict.fromkeys(layers)),
            where=scope,
            limit=limit,
            fusion=self._fusion,
            neighbors=neighbors,
            group_by=group_by,
            after=after,
        )

    def history(self, memory_id: str) -> list[Document]:
        """The changes of a memory, the oldest first: log entries with its state `before` and
        `after`, None where it did not exist."""
        where = {"memory_id": memory_id, "action": {"$ne": "ignore"}}
        return self.db.collection("log").find(where, order_by="created_at")

    def logs(
        self,
        memory_id: str | None = None,
        *,
        memory_layer: Layer | None = None,
        action: Action | None = None,
        entity_id: str | None = None,
        memory_type: MemoryType = "user",
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """Log entries, the newest first; deleted memories have entries too."""
        where: dict[str, Any] = {} if entity_id is None else _where(memory_type, entity_id, None)
        where |= having(memory_id=memory_id, memory_layer=memory_layer, action=action)
        return self.db.collection("log").find(
            where, order_by="-created_at", limit=limit, after=after
        )

    # -- inside ------------------------------------------------------------------------------

    def _declare(self, dim: int | None) -> None:
        """Declares the collections of the layers and the log."""
        searched: list[Text | Vector] = [Text("content")]
        if dim is not None:
            searched.append(
                Vector("embedding", dim=dim, source="content", embed=self._embed, defer=True)
            )
        owner = ("memory_type", "entity_id")
        orders: dict[Layer, str] = {"profile": "updated_at", "event": "created_at"}
        for layer, order in orders.items():
            self.db.collection(
                layer,
                indexes=[
                    Ordered(*owner, order),
                    Ordered(*owner, "category", order),
                    Ordered(*owner, "facts", sparse=True),
                    Ordered(*owner, "expiry_date", sparse=True),
                    Ordered("created_at"),
                    *searched,
                ],
                expires_at="expiry_date",
                required={"entity_id": str, "content": str, "memory_type": str},
                version=2,
                migrate={2: partial(with_facts, layer)},
            )
        self.db.collection(
            "log",
            indexes=[
                Ordered("memory_id", "created_at"),
                Ordered("memory_layer", "created_at"),
                Ordered("action", "created_at"),
                Ordered(*owner, "created_at"),
                Ordered("created_at"),
            ],
            expires_at="expiry_date",
        )

    def _now(self) -> datetime:
        return self._clock()

    def _one(self, memory_layer: Layer, memory_id: str, decision: Decision) -> Outcome:
        """Applies a decision on a memory to its owner."""
        memory = self.get(memory_layer, memory_id)
        if memory is None:
            raise _missing(memory_layer, memory_id)
        (outcome,) = self.apply(memory["entity_id"], [decision], memory_type=memory["memory_type"])
        return outcome

    def _extracted(
        self, memory_type: MemoryType, entity_id: str, content: str
    ) -> Sequence[Decision]:
        """The extractor's decisions, checked. Raises QueryError, ExtractionError."""
        if self._extract is None:
            raise QueryError("auto_extract needs an extractor: Memory(db, extract=RuleExtractor())")
        known = self._known(memory_type, entity_id, content)
        decisions = self._extract(content, known)
        for decision in decisions:
            if decision.memory_id is not None and not _is_known(known, decision.memory_id):
                raise ExtractionError(
                    f"the extractor named the memory {decision.memory_id!r}, which it did not get: "
                    "nothing was stored",
                    memory_id=decision.memory_id,
                )
            try:
                self._documents.check(decision)
            except InvalidDocumentError as error:
                raise ExtractionError(
                    f"the extractor returned an invalid decision: {error.message}"
                ) from error
        return decisions

    def _known(self, memory_type: MemoryType, entity_id: str, content: str) -> Known:
        """The newest memories of both layers, and the events most similar to the text."""

        def events() -> Sequence[Document]:
            newest = self.events(entity_id, memory_type=memory_type, limit=KNOWN_MAX)
            found = {event["id"]: event for event in newest}
            similar = self.recall(
                content, entity_id=entity_id, memory_type=memory_type, layers=("event",)
            )
            return list((found | {event.memory_id: event.document for event in similar}).values())

        return Known(
            memory_type,
            entity_id,
            _Read(lambda: self.profile(entity_id, memory_type=memory_type, limit=KNOWN_MAX)),
            _Read(events),
            self._now(),
            self._documents.categories,
        )

    def _apply(
        self,
        entity_id: str,
        decisions: Sequence[Decision],
        memory_type: MemoryType,
        *,
        extracted: bool,
    ) -> list[Outcome]:
        """Applies checked decisions in one commit. Those that an extractor has made are settled by
        what is committed, which may have changed since it was asked."""
        stored = [each.content if each.action in _STORES else None for each in decisions]
        vectors = embed_texts(self._embed, stored)
        now = self._now()
        outcomes: list[Outcome] = []
        with self.db.transaction() as tx:
            owned = _Owned(tx, memory_type, entity_id)
            for decision, vector in zip(decisions, vectors, strict=True):
                final = settled(decision, owned, now) if extracted else decision
                outcomes.append(self._applied(tx, memory_type, entity_id, final, vector, now))
        return outcomes

    def _applied(
        self,
        tx: Transaction,
        memory_type: MemoryType,
        entity_id: str,
        decision: Decision,
        vector: Any,
        now: datetime,
    ) -> Outcome:
        """Applies one decision in a transaction, with its log entry. Raises MissingKeyError."""
        layer, action = decision.memory_layer, decision.action
        memory_id = decision.memory_id or ""
        before: Document | None = None
        after: Document | None = None
        if action == "insert":
            after = self._documents.new(memory_type, entity_id, decision, vector, now)
            memory_id = tx[layer].put(after)
        elif action != "ignore":
            before = tx[layer].get(memory_id)
            if before is None or not _is_of(before, memory_type, entity_id):
                raise _missing(layer, memory_id)
            if action == "delete":
                tx[layer].delete(memory_id)
            else:
                tx[layer].update(memory_id, self._documents.patch(before, decision, vector, now))
                after = tx[layer][memory_id]
        entry = self._documents.entry(
            memory_type, entity_id, memory_id, decision, now, before=before, after=after
        )
        return Outcome(action, layer, memory_id, entry["reason"], tx["log"].put(entry))


class _Read(Sequence[Document]):
    """Memories that are read when an extractor looks at them: rules do not."""

    def __init__(self, read: Callable[[], Sequence[Document]]) -> None:
        self._read = cache(read)

    @overload
    def __getitem__(self, at: int) -> Document: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Document]: ...

    def __getitem__(self, at: int | slice) -> Document | Sequence[Document]:
        return self._read()[at]

    def __len__(self) -> int:
        return len(self._read())


def _is_known(known: Known, memory_id: str) -> bool:
    return any(each["id"] == memory_id for each in (*known.profile, *known.events))


class _Owned:
    """The memories of one owner, as a transaction sees them."""

    def __init__(self, tx: Transaction, memory_type: MemoryType, entity_id: str) -> None:
        self._tx = tx
        self._owner = {"memory_type": memory_type, "entity_id": entity_id}

    def having(self, layer: Layer, key: str) -> Sequence[Document]:
        return self._tx[layer].find({**self._owner, "facts": {"$contains": key}})

    def has(self, layer: Layer, memory_id: str) -> bool:
        memory = self._tx[layer].get(memory_id)
        return memory is not None and _is_of(memory, **self._owner)


def _is_of(memory: Document, memory_type: str, entity_id: str) -> bool:
    return (memory["memory_type"], memory["entity_id"]) == (memory_type, entity_id)


def _where(memory_type: MemoryType, entity_id: str, category: str | None) -> dict[str, Any]:
    check_owner(memory_type, entity_id)
    return having(memory_type=memory_type, entity_id=entity_id, category=category)


def _missing(layer: Layer, memory_id: str) -> MissingKeyError:
    return MissingKeyError(
        f"the {layer} layer has no memory {memory_id!r}: it may have expired",
        collection=layer,
        key=memory_id,
    )
