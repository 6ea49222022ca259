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
    Page,
    QueryError,
    Transaction,
)
from amberdb._shared.checks import check_text
from amberdb._shared.clock import SteadyClock
from amberdb._shared.embedder import Embedder
from amberdb._shared.queries import between, having
from amberdb._shared.search_input import asked
from amberdb.memory.changes import Changes, Owner
from amberdb.memory.documents import FIELDS, Documents, check_owner, forgotten
from amberdb.memory.layers import Layers
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

KNOWN_MAX: Final = 50
"""The most recent memories of each layer that an extractor gets."""
BATCH: Final = 1_000
"""The most log entries that one commit of forget() redacts."""


@final
class Memory:
    """Layered memory over an open database; threads may share it.

    name         a prefix of the names of its collections; None: "profile", "event" and "log"
    embed, dim   list of str -> array of shape (n, dim), for vector search of memories
    model        the name of the embedder. With another name, or another dim, than the stored
                 vectors have, all texts are embedded anew in the background
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
        name: str | None = None,
        embed: Embed | None = None,
        dim: int | None = None,
        model: str | None = None,
        fusion: Fusion | None = None,
        extract: Extractor | None = None,
        retention: Retention | None = None,
        categories: Mapping[Layer, Iterable[str]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = db
        self._embedder = Embedder(embed, dim, model)
        self._layers = Layers(name)
        self._fusion = fusion or Fusion()
        self._extract = extract
        self._clock = SteadyClock(clock)
        more = categories or {}
        self._documents = Documents(
            retention or Retention(),
            {layer: {*CATEGORIES[layer], *more.get(layer, ())} for layer in LAYERS},
            has_vectors=embed is not None,
        )
        self.changes = Changes(db, self._layers, self._documents, self._embedder, self._clock)
        self._layers.declare(db, self._embedder)

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
        memory_id: str | None = None,
        created_at: datetime | None = None,
        tx: Transaction | None = None,
    ) -> list[Outcome]:
        """Stores a memory in a layer, or with `auto_extract` applies the extractor's decisions;
        what is given here is of all memories that they store.

        memory_id, created_at  an id, and the time at which it was told, of one's own
        tx                     a transaction of the caller, with which it is committed; the vector
                               follows later, since no model is called within a transaction

        An event that is not permanent expires at `expiry_date` or after the retention of its layer.
        Raises InvalidDocumentError, QueryError, ExtractionError, DuplicateKeyError; then nothing
        was stored.
        """
        check_owner(memory_type, entity_id)
        check_text("content", content)
        owner = Owner(memory_type, entity_id)
        if auto_extract:
            if memory_layer is not None or memory_id is not None:
                raise QueryError("auto_extract chooses layer and id: omit memory_layer, memory_id")
            decisions = [
                self._documents.given(
                    decision,
                    category=category,
                    metadata=metadata,
                    is_permanent=is_permanent,
                    expiry_date=expiry_date,
                    reason=reason,
                    created_at=created_at,
                )
                for decision in self._extracted(owner, content)
            ]
            return self._apply(owner, decisions, extracted=True, tx=tx)
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
            memory_id=memory_id,
            created_at=created_at,
        )
        return self._apply(owner, [decision], tx=tx)

    def remember_many(
        self,
        memories: Iterable[Mapping[str, Any]],
        *,
        memory_type: MemoryType = "user",
        memory_layer: Layer | None = None,
        tx: Transaction | None = None,
    ) -> list[Outcome]:
        """Stores memories of any entities in one commit: all or none.

            memory.remember_many(
                [{"entity_id": "lin", "content": "likes tea", "created_at": told}],
                memory_layer="profile",
            )

        Each is a map of the arguments of remember(): entity_id, content, and as wanted
        memory_layer, category, metadata, is_permanent, expiry_date, reason, memory_id, created_at.
        Their texts are embedded in one call. Raises InvalidDocumentError, QueryError,
        DuplicateKeyError.
        """
        inserts: list[tuple[Owner, Decision]] = []
        for given in memories:
            owner = Owner(memory_type, given.get("entity_id", ""))
            check_owner(*owner)
            inserts.append((owner, self._documents.insertion(given, memory_layer)))
        return self.changes.apply(inserts, tx=tx)

    def apply(
        self,
        entity_id: str,
        decisions: Sequence[Decision],
        *,
        memory_type: MemoryType = "user",
        tx: Transaction | None = None,
    ) -> list[Outcome]:
        """Applies decisions and writes their log entries, in one commit: all or none. Raises
        InvalidDocumentError, DuplicateKeyError, and MissingKeyError for a memory that this entity
        does not have."""
        check_owner(memory_type, entity_id)
        return self._apply(Owner(memory_type, entity_id), decisions, tx=tx)

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
        tx: Transaction | None = None,
    ) -> Outcome:
        """Changes the given fields of a memory. Metadata is merged, and {} empties it. Raises
        MissingKeyError, InvalidDocumentError."""
        return self._one(
            Decision(
                action="update",
                memory_layer=memory_layer,
                reason=reason or "",
                content=content,
                memory_id=memory_id,
                category=category,
                is_permanent=is_permanent,
                expiry_date=expiry_date,
                metadata=metadata,
            ),
            tx,
        )

    def delete(
        self,
        memory_layer: Layer,
        memory_id: str,
        *,
        reason: str | None = None,
        tx: Transaction | None = None,
    ) -> Outcome:
        """Deletes a memory; its log stays readable. Raises MissingKeyError."""
        decision = Decision(
            action="delete", memory_layer=memory_layer, reason=reason or "", memory_id=memory_id
        )
        return self._one(decision, tx)

    def undo(
        self, log_id: str, *, reason: str | None = None, tx: Transaction | None = None
    ) -> Outcome:
        """Takes the change of a log entry back: an insert is deleted, an update or a deletion is as
        before. Raises MissingKeyError for an unknown entry, QueryError for one that changed
        nothing, ConflictError when the memory was changed since."""
        return self.changes.undo(log_id, reason, tx)

    def forget(
        self,
        entity_id: str,
        *,
        memory_type: MemoryType = "user",
        reason: str = "forgotten",
        compact: bool = True,
    ) -> Forgotten:
        """Deletes the memories of an entity in both layers, and erases entity, content, reason and
        metadata of its log entries; a receipt. With `compact` expired memories and the log that
        subscribers have yet to read are included, and no file of the directory holds the deleted
        bytes when this returns (db.erase(), whose receipt has the `reason`). When it is
        interrupted, call it again.

        amberdb.privacy.forget() is for what all systems of the database hold of somebody."""
        check_owner(memory_type, entity_id)
        owned = Owner(memory_type, entity_id).where()
        now = self._now()
        layers = [self._layers[layer] for layer in LAYERS]
        entries = self._redact(owned, now)
        if compact:
            erasure = self.db.erase(dict.fromkeys(layers, owned), reason=reason)
            profile, events = (erasure.collections[name] for name in layers)
            late = self.db.run(partial(self._redact_late, owned, now))
            if late:  # whose bytes are in the files still
                self.db.erase(dict.fromkeys(layers, owned), reason=reason)
            return Forgotten(profile, events, entries + late, erasure.lsn, now, is_compacted=True)

        def delete(tx: Transaction) -> tuple[Transaction, list[int], int]:
            counts = [tx[name].delete_many(owned) for name in layers]
            return tx, counts, self._redact_late(owned, now, tx)

        tx, (profile, events), late = self.db.run(delete)
        return Forgotten(profile, events, entries + late, tx.lsn, now, is_compacted=False)

    # -- reading -----------------------------------------------------------------------------

    def get(self, memory_layer: Layer, memory_id: str) -> Document | None:
        """A whole memory, or None."""
        memory: Document | None = self.db.collection(self._layers[memory_layer]).get(memory_id)
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
        return self.db.collection(self._layers["profile"]).find(
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
        return self.db.collection(self._layers["event"]).find(
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
        (vector,) = self._embedder.vectors([text])
        return recall(
            self.db,
            search,
            vector,
            layers={layer: self._layers[layer] for layer in layers},
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
        return self.db.collection(self._layers.log).find(where, order_by="position")

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
        return self.db.collection(self._layers.log).find(
            where, order_by="-position", limit=limit, after=after
        )

    # -- inside ------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return self._clock()

    def _redact(self, owned: Mapping[str, Any], now: datetime) -> int:
        """Erases all but ids, actions and times of the owner's log entries; how many."""

        def redact(tx: Transaction) -> int:
            page = tx[self._layers.log].find(owned, limit=BATCH)
            tx[self._layers.log].put_many(forgotten(entry, now) for entry in page)
            return len(page)

        count = 0
        while True:
            redacted = self.db.run(redact)
            count += redacted
            if redacted < BATCH:
                return count

    def _redact_late(self, owned: Mapping[str, Any], now: datetime, tx: Transaction) -> int:
        """Erases log entries of memories that were told since _redact(), and deleted with the
        others; how many. What was told after the deletion stays, with its entries."""
        layers = [tx[self._layers[layer]] for layer in LAYERS]
        log = tx[self._layers.log]
        late = [
            entry
            for entry in log.find(owned)
            if not any(entry["memory_id"] in memories for memories in layers)
        ]
        log.put_many(forgotten(entry, now) for entry in late)
        return len(late)

    def _one(self, decision: Decision, tx: Transaction | None) -> Outcome:
        """Applies a decision on a memory, whoever has it."""
        self._documents.check(decision)
        (outcome,) = self.changes.apply([(None, decision)], tx=tx)
        return outcome

    def _apply(
        self,
        owner: Owner,
        decisions: Sequence[Decision],
        *,
        extracted: bool = False,
        tx: Transaction | None,
    ) -> list[Outcome]:
        for decision in decisions:
            self._documents.check(decision)
        return self.changes.apply(
            [(owner, decision) for decision in decisions], extracted=extracted, tx=tx
        )

    def _extracted(self, owner: Owner, content: str) -> Sequence[Decision]:
        """The extractor's decisions, checked. Raises QueryError, ExtractionError."""
        if self._extract is None:
            raise QueryError("auto_extract needs an extractor: Memory(db, extract=RuleExtractor())")
        known = self._known(owner, content)
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

    def _known(self, owner: Owner, content: str) -> Known:
        """The newest memories of both layers, and the events most similar to the text."""
        memory_type, entity_id = owner

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


def _where(memory_type: MemoryType, entity_id: str, category: str | None) -> dict[str, Any]:
    check_owner(memory_type, entity_id)
    return having(memory_type=memory_type, entity_id=entity_id, category=category)
