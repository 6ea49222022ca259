"""Layered memory: what stays true of somebody, what happened, and a log of every change.

    profile   long-lived facts         by (memory_type, entity_id, updated_at)
    event     what happened, expiring  by (memory_type, entity_id, created_at)
    log       insert, update, ignore, delete, each with a reason in words

Invariants:
- A change and its log entry are one commit.
- A model is called outside of transactions: an embedder or an extractor that is slow holds up
  nobody, and one that fails has stored nothing. A memory whose embedder is down is stored, and
  gets its vector later.
- Nobody is told of a memory that was forgotten: its log entries lose entity, reason and metadata.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, final

from amberdb import (
    CollectionError,
    Database,
    Document,
    ExtractionError,
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
from amberdb._shared.checks import check_text
from amberdb._shared.queries import between
from amberdb._shared.questions import vectors
from amberdb.index.vector.vector import Embed
from amberdb.memory.documents import FIELDS, Documents, check_layer, check_owner, forgotten
from amberdb.memory.recall import recall
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
    Recalled,
    Retention,
)

KNOWN_MAX: Final = 50
"""Memories of each layer that an extractor is told of."""


@final
class Memory:
    """Layered memory over an open database; threads may share it.

    embed, dim   list of str -> array of shape (n, dim): memories are found by meaning too
    fusion       how words and meaning are put together; has weights of "content", "embedding"
    extract      turns text into decisions, for remember(auto_extract=True)
    retention    how long each layer is kept
    categories   more of them, by layer
    clock        epoch seconds

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
        if (embed is None) != (dim is None):
            raise CollectionError("embed and dim come together: how long are its vectors?")
        self.db = db
        self._embed = embed
        self._fusion = fusion or Fusion()
        self._extract = extract
        self._clock = clock
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
        """Stores a memory in a layer; with `auto_extract` what the extractor makes of the text.

        Events that are not permanent expire, at `expiry_date` or as the retention says; profile
        memories stay. Raises InvalidDocumentError, QueryError, and ExtractionError; then nothing
        was stored.
        """
        check_owner(memory_type, entity_id)
        check_text("content", content)
        if auto_extract:
            if memory_layer is not None:
                raise QueryError("auto_extract decides on the layer: leave memory_layer out")
            decisions = self._extracted(memory_type, entity_id, content)
        elif memory_layer is None:
            raise QueryError('say memory_layer="profile" or "event", or auto_extract=True')
        else:
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
            decisions = [decision]
        return self.apply(entity_id, decisions, memory_type=memory_type)

    def apply(
        self, entity_id: str, decisions: Sequence[Decision], *, memory_type: MemoryType = "user"
    ) -> list[Outcome]:
        """Carries decisions out, with their log entries, in one commit: all or none. Raises
        InvalidDocumentError, and MissingKeyError for a memory that this entity does not have."""
        check_owner(memory_type, entity_id)
        for decision in decisions:
            self._documents.check(decision)
        embedded = vectors(self._embed, [each.content for each in decisions])
        now = self._now()
        with self.db.transaction() as tx:
            return [
                self._applied(tx, memory_type, entity_id, decision, vector, now)
                for decision, vector in zip(decisions, embedded, strict=True)
            ]

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
        """Changes what is given of one memory. Raises MissingKeyError, InvalidDocumentError."""
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
        """Its log stays readable. Raises MissingKeyError."""
        decision = Decision(
            action="delete", memory_layer=memory_layer, reason=reason or "", memory_id=memory_id
        )
        return self._one(memory_layer, memory_id, decision)

    def forget(
        self,
        entity_id: str,
        *,
        memory_type: MemoryType = "user",
        compact: bool = True,
    ) -> Forgotten:
        """Removes all that is known of an entity: both layers in one commit, and what its log
        says of it. With `compact` nothing of it is left in any file of the directory when this
        returns. A receipt."""
        check_owner(memory_type, entity_id)
        mine = {"memory_type": memory_type, "entity_id": entity_id}
        now = self._now()
        with self.db.transaction() as tx:
            profile, events = (tx[layer].delete_many(mine) for layer in LAYERS)
            entries = tx["log"].find(mine, limit=None)
            tx["log"].put_many(forgotten(entry, now) for entry in entries)
        if compact:
            self.db.compact()
        return Forgotten(profile, events, len(entries), tx.lsn, now, compact)

    # -- reading -----------------------------------------------------------------------------

    def get(self, memory_layer: Layer, memory_id: str) -> Document | None:
        """One memory, whole."""
        check_layer(memory_layer)
        found: Document | None = self.db.collection(memory_layer).get(memory_id)
        return found

    def profile(
        self,
        entity_id: str,
        *,
        memory_type: MemoryType = "user",
        category: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page:
        """What is known to be true of an entity, the last changed first."""
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
        category: str | None = None,
        after: str | None = None,
    ) -> Page:
        """What happened, the latest first; from `since` on, before `until`."""
        where = _where(memory_type, entity_id, category)
        where |= between("created_at", since, until)
        return self.db.collection("event").find(
            where, order_by="-created_at", limit=limit, after=after, fields=FIELDS
        )

    def recall(
        self,
        query: str,
        *,
        entity_id: str | None = None,
        memory_type: MemoryType = "user",
        layers: Sequence[Layer] = LAYERS,
        limit: int = 10,
        where: Mapping[str, Any] | None = None,
    ) -> list[Recalled]:
        """Memories that the query's words, or its meaning, lead to, the best first: of one
        entity, or of all. `where` narrows it further. Raises QueryError."""
        check_text("query", query)
        scope: dict[str, Any] = {"memory_type": memory_type, **(where or {})}
        if entity_id is not None:
            scope["entity_id"] = entity_id
        for layer in layers:
            check_layer(layer)
        (vector,) = vectors(self._embed, [query])
        chosen = list(dict.fromkeys(layers))
        return recall(
            self.db, query, vector, layers=chosen, where=scope, limit=limit, fusion=self._fusion
        )

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
        """Entries of the log, the latest first; those of deleted memories too."""
        where: dict[str, Any] = {} if entity_id is None else _where(memory_type, entity_id, None)
        asked = {"memory_id": memory_id, "memory_layer": memory_layer, "action": action}
        where |= {name: value for name, value in asked.items() if value is not None}
        return self.db.collection("log").find(
            where, order_by="-created_at", limit=limit, after=after
        )

    # -- inside ------------------------------------------------------------------------------

    def _declare(self, dim: int | None) -> None:
        searched: list[Text | Vector] = [Text("content")]
        if dim is not None:
            searched.append(
                Vector("embedding", dim=dim, source="content", embed=self._embed, defer=True)
            )
        owner = ("memory_type", "entity_id")
        for layer, times in (("profile", "updated_at"), ("event", "created_at")):
            self.db.collection(
                layer,
                indexes=[
                    Ordered(*owner, times),
                    Ordered(*owner, "category", times),
                    Ordered("created_at"),
                    *searched,
                ],
                expires_at="expiry_date",
                required={"entity_id": str, "content": str, "memory_type": str},
            )
        self.db.collection(
            "log",
            indexes=[
                Ordered("memory_id", "created_at"),
                Ordered("memory_layer", "created_at"),
                Ordered("action", "created_at"),
                Ordered(*owner, "created_at", sparse=True),
                Ordered("created_at"),
            ],
            expires_at="expiry_date",
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _one(self, memory_layer: Layer, memory_id: str, decision: Decision) -> Outcome:
        """Of a memory whose owner is not named."""
        found = self.get(memory_layer, memory_id)
        if found is None:
            raise _missing(memory_layer, memory_id)
        (outcome,) = self.apply(found["entity_id"], [decision], memory_type=found["memory_type"])
        return outcome

    def _extracted(
        self, memory_type: MemoryType, entity_id: str, content: str
    ) -> Sequence[Decision]:
        if self._extract is None:
            raise QueryError("auto_extract needs an extractor: Memory(db, extract=RuleExtractor())")
        known = self._known(memory_type, entity_id, content)
        decisions = self._extract(content, known)
        ids = {document["id"] for document in (*known.profile, *known.events)}
        for decision in decisions:
            if decision.memory_id is not None and decision.memory_id not in ids:
                raise ExtractionError(
                    f"the extractor speaks of a memory {decision.memory_id!r} that it was not told "
                    "of, so nothing was stored",
                    memory_id=decision.memory_id,
                )
            try:
                self._documents.check(decision)
            except InvalidDocumentError as error:
                raise ExtractionError(
                    f"the extractor decided on what cannot be stored: {error.message}"
                ) from error
        return decisions

    def _known(self, memory_type: MemoryType, entity_id: str, content: str) -> Known:
        """Both layers: the newest, and of events what the text is about."""
        events = {
            each["id"]: each
            for each in self.events(entity_id, memory_type=memory_type, limit=KNOWN_MAX)
        }
        about = self.recall(
            content, entity_id=entity_id, memory_type=memory_type, layers=("event",)
        )
        events.update((each.memory_id, each.document) for each in about)
        profile = self.profile(entity_id, memory_type=memory_type, limit=KNOWN_MAX)
        return Known(memory_type, entity_id, profile, list(events.values()), self._now())

    def _applied(
        self,
        tx: Transaction,
        memory_type: MemoryType,
        entity_id: str,
        decision: Decision,
        vector: Any,
        now: datetime,
    ) -> Outcome:
        layer, action = decision.memory_layer, decision.action
        memory_id = decision.memory_id or ""
        if action == "insert":
            document = self._documents.new(memory_type, entity_id, decision, vector, now)
            memory_id = tx[layer].put(document)
        elif action != "ignore":
            old = tx[layer].get(memory_id)
            if old is None or (old["memory_type"], old["entity_id"]) != (memory_type, entity_id):
                raise _missing(layer, memory_id)
            if action == "delete":
                tx[layer].delete(memory_id)
            else:
                tx[layer].update(memory_id, self._documents.patch(old, decision, vector, now))
        entry = self._documents.entry(memory_type, entity_id, memory_id, decision, now)
        return Outcome(action, layer, memory_id, entry["reason"], tx["log"].put(entry))


def _where(memory_type: MemoryType, entity_id: str, category: str | None) -> dict[str, Any]:
    check_owner(memory_type, entity_id)
    where: dict[str, Any] = {"memory_type": memory_type, "entity_id": entity_id}
    return where if category is None else {**where, "category": category}


def _missing(layer: Layer, memory_id: str) -> MissingKeyError:
    return MissingKeyError(
        f"the {layer} layer has no memory {memory_id!r}: it may have expired",
        collection=layer,
        key=memory_id,
    )
