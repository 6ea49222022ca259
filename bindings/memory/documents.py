"""The documents of layered memory: a decision as a memory, a change or a log entry, and its checks.

Invariants:
- A decision is checked before a transaction begins.
- A memory gets its id before it is stored; with an embedder `embedding_id` is the same id.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, final
from uuid import uuid4

from amberdb import Document, InvalidDocumentError, Patch, QueryError
from amberdb._shared.checks import check_optional_str, check_optional_time, check_text
from amberdb._shared.patches import merging
from amberdb.memory.evidence import keys_of
from amberdb.memory.types import (
    ACTIONS,
    LAYERS,
    MEMORY_TYPES,
    Action,
    Decision,
    Layer,
    MemoryType,
    Retention,
)

FIELDS: Final = (
    "id",
    "memory_type",
    "entity_id",
    "content",
    "category",
    "metadata",
    "embedding_id",
    "is_permanent",
    "expiry_date",
    "created_at",
    "updated_at",
)
"""The fields of a memory that are returned: all but its vector and the keys of its facts."""

_STATE: Final = ("content", "category", "metadata", "is_permanent", "expiry_date", "created_at")
_GIVEN: Final = (
    "content",
    "category",
    "metadata",
    "is_permanent",
    "expiry_date",
    "memory_id",
    "created_at",
)
"""What remember_many() takes of a memory, beside its entity, layer and reason."""
_DEFAULT_REASONS: Final[Mapping[Action, str]] = {
    "insert": "stored in the {layer} layer on request",
    "update": "changed in the {layer} layer on request",
    "ignore": "contains nothing new",
    "delete": "deleted from the {layer} layer on request",
}
_FORGOTTEN_KEEPS: Final = (
    "id",
    "memory_id",
    "memory_layer",
    "action",
    "position",
    "created_at",
    "expiry_date",
)


@final
class Documents:
    """Makes the documents of one Memory, with its retention and categories."""

    def __init__(
        self, retention: Retention, categories: Mapping[Layer, Set[str]], *, has_vectors: bool
    ) -> None:
        self._retention = retention
        self._categories = categories
        self._has_vectors = has_vectors

    def check(self, decision: Decision) -> None:
        """Raises InvalidDocumentError or QueryError for a decision that cannot be applied."""
        check_layer(decision.memory_layer)
        if decision.action not in ACTIONS:
            raise InvalidDocumentError(
                f"action must be one of {', '.join(ACTIONS)}, not {decision.action!r}",
                field="action",
            )
        if decision.action == "insert" or decision.content is not None:
            check_text("content", decision.content)
        if decision.action in ("update", "delete"):
            check_text("memory_id", decision.memory_id)
        for field in ("memory_id", "category"):
            check_optional_str(field, getattr(decision, field))
        known = self._categories[decision.memory_layer]
        if decision.category is not None and decision.category not in known:
            raise InvalidDocumentError(
                f"the {decision.memory_layer} layer has no category {decision.category!r}, only "
                f"{', '.join(sorted(known))}: add it with Memory(categories=)",
                field="category",
            )
        check_optional_time("expiry_date", decision.expiry_date)
        check_optional_time("created_at", decision.created_at)
        if decision.is_permanent and decision.expiry_date is not None:
            raise InvalidDocumentError(
                "a permanent memory has no expiry_date: give one of the two", field="expiry_date"
            )

    def given(
        self,
        decision: Decision,
        *,
        category: str | None,
        metadata: Mapping[str, Any] | None,
        is_permanent: bool | None,
        expiry_date: datetime | None,
        reason: str | None,
        created_at: datetime | None,
    ) -> Decision:
        """The decision of an extractor, with what the caller says of all that is stored. A category
        is for its own layer. Raises InvalidDocumentError for one of no layer."""
        if category is not None and not any(category in each for each in self._categories.values()):
            raise InvalidDocumentError(
                f"no layer has a category {category!r}: add it with Memory(categories=)",
                field="category",
            )
        if decision.action not in ("insert", "update"):
            return decision
        if category not in self._categories[decision.memory_layer]:
            category = None
        return replace(
            decision,
            category=category or decision.category,
            metadata=decision.metadata if metadata is None else metadata,
            is_permanent=decision.is_permanent if is_permanent is None else is_permanent,
            expiry_date=expiry_date or (None if is_permanent else decision.expiry_date),
            created_at=created_at,
            reason=f"{reason} ({decision.reason})" if reason else decision.reason,
        )

    @property
    def categories(self) -> Mapping[Layer, Sequence[str]]:
        """The categories of each layer."""
        return {layer: sorted(names) for layer, names in self._categories.items()}

    def insertion(self, given: Mapping[str, Any], layer: Layer | None) -> Decision:
        """The insert of a memory that is given as a map of the arguments of remember(). Raises
        InvalidDocumentError, QueryError."""
        fields = dict(given)
        fields.pop("entity_id", None)
        layer = fields.pop("memory_layer", layer)
        reason = fields.pop("reason", None) or ""
        for name in fields:
            if name not in _GIVEN:
                raise InvalidDocumentError(
                    f"a memory is not given with {name!r}: its fields are entity_id, memory_layer, "
                    f"reason, {', '.join(_GIVEN)}",
                    field=name,
                )
        check_layer(layer)
        assert layer is not None
        fields["metadata"] = fields.get("metadata") or {}
        decision = Decision(action="insert", memory_layer=layer, reason=reason, **fields)
        self.check(decision)
        return decision

    def new(
        self,
        memory_type: MemoryType,
        entity_id: str,
        decision: Decision,
        vector: Any,
        now: datetime,
    ) -> Document:
        """The document of an insert."""
        layer, given = decision.memory_layer, decision.expiry_date
        keep = self._retention.of(layer)
        is_permanent = decision.is_permanent
        if is_permanent is None:
            is_permanent = layer == "profile" and given is None and keep is None
        id = decision.memory_id or uuid4().hex
        told = decision.created_at or now
        return {
            "id": id,
            "memory_type": memory_type,
            "entity_id": entity_id,
            "content": decision.content,
            "category": decision.category or ("other" if layer == "event" else None),
            "metadata": dict(decision.metadata or {}),
            "embedding_id": id if self._has_vectors else None,
            "is_permanent": is_permanent,
            "expiry_date": given or (None if is_permanent else _later(now, keep)),
            "created_at": told,
            "updated_at": told,
            "facts": keys_of(layer, decision.content or ""),
            **_embedding(vector),
        }

    def patch(self, old: Document, decision: Decision, vector: Any, now: datetime) -> Patch:
        """The changes of an update; fields that the decision does not set stay."""
        layer, given = decision.memory_layer, decision.expiry_date
        patch: dict[str, Any] = {"updated_at": now}
        if decision.content is not None:
            facts = keys_of(layer, decision.content)
            patch |= {"content": decision.content, "facts": facts, **_embedding(vector)}
        if decision.category is not None:
            patch["category"] = decision.category
        if decision.metadata is not None:
            patch["metadata"] = dict(decision.metadata)
            if not decision.metadata:  # empties it; another map is merged
                old = {**old, "metadata": None}
        is_permanent = decision.is_permanent
        if is_permanent is None:
            is_permanent = old.get("is_permanent", False) and given is None
        patch["is_permanent"] = is_permanent
        if given is not None or is_permanent:
            patch["expiry_date"] = given
        elif layer == "profile" or old.get("is_permanent"):
            patch["expiry_date"] = _later(now, self._retention.of(layer))
        return merging(old, patch)

    def entry(
        self,
        memory_type: MemoryType,
        entity_id: str,
        memory_id: str,
        decision: Decision,
        now: datetime,
        *,
        before: Document | None,
        after: Document | None,
    ) -> Document:
        """The log entry of a decision, with the memory before and after it; None where there was
        none."""
        layer, action = decision.memory_layer, decision.action
        return {
            "memory_id": memory_id,
            "memory_layer": layer,
            "action": action,
            "reason": decision.reason or _DEFAULT_REASONS[action].format(layer=layer),
            "metadata": dict(decision.metadata or {}),
            "before": None if before is None else state_of(before),
            "after": None if after is None else state_of(after),
            "memory_type": memory_type,
            "entity_id": entity_id,
            "created_at": now,
            "expiry_date": _later(now, self._retention.log),
        }


def state_of(memory: Document) -> Document:
    """What the log keeps of a memory, and undo() brings back."""
    return {name: memory.get(name) for name in _STATE}


def with_facts(layer: Layer, memory: Document) -> Document:
    """A memory of before they had the keys of their facts."""
    return {**memory, "facts": keys_of(layer, memory["content"])}


def forgotten(entry: Document, now: datetime) -> Document:
    """A log entry without entity, reason and metadata: it keeps the action and its time."""
    kept = {name: entry.get(name) for name in _FORGOTTEN_KEEPS}
    return {**kept, "reason": None, "forgotten_at": now}


def check_owner(memory_type: object, entity_id: object) -> None:
    """Raises QueryError unless they name an owner of memories."""
    if memory_type not in MEMORY_TYPES:
        raise QueryError(f'memory_type must be "user" or "agent", not {memory_type!r}')
    if not isinstance(entity_id, str) or not entity_id:
        raise QueryError(f"entity_id must be a non-empty str, not {entity_id!r}")


def check_layer(layer: object) -> None:
    """Raises QueryError unless it is the name of a layer."""
    if layer not in LAYERS:
        raise QueryError(f'a layer must be "profile" or "event", not {layer!r}')


def _later(now: datetime, by: timedelta | None) -> datetime | None:
    return None if by is None else now + by


def _embedding(vector: Any) -> dict[str, Any]:
    """The field of a vector. Without a vector (the embedder failed) it is missing, and added
    later."""
    return {} if vector is None else {"embedding": vector}
