"""The types of layered memory: layers, actions, decisions and results.

Invariants:
- A decision is complete: Memory.apply() needs no model to carry it out.
- Instances are immutable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias, final

from amberdb import Document, Lsn

Layer: TypeAlias = Literal["profile", "event"]
MemoryType: TypeAlias = Literal["user", "agent"]
Action: TypeAlias = Literal["insert", "update", "ignore", "delete"]

LAYERS: Final[tuple[Layer, ...]] = ("profile", "event")
MEMORY_TYPES: Final[tuple[MemoryType, ...]] = ("user", "agent")
ACTIONS: Final[tuple[Action, ...]] = ("insert", "update", "ignore", "delete")
CATEGORIES: Final[Mapping[Layer, tuple[str, ...]]] = {
    "profile": ("preference", "ability", "career", "education", "personality", "value"),
    "event": ("conversation", "meeting", "action", "decision", "event", "other"),
}
"""The categories of each layer; Memory(categories=) adds to them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long memories of each layer are kept; None means for ever.

    It does not apply to permanent memories and to those with their own expiry_date.
    """

    profile: timedelta | None = None
    """Counted from the last change."""
    event: timedelta | None = timedelta(days=90)
    log: timedelta | None = timedelta(days=365)

    def of(self, layer: Layer) -> timedelta | None:
        """The retention of a layer."""
        return self.profile if layer == "profile" else self.event


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with one piece of information."""

    action: Action
    memory_layer: Layer
    reason: str
    """A sentence for the log."""
    content: str | None = None
    """The text of the memory, for insert and update."""
    memory_id: str | None = None
    """The memory to update or delete; for ignore the memory that has the information already; for
    insert an id of one's own."""
    category: str | None = None
    is_permanent: bool | None = None
    expiry_date: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    """None leaves that of a memory as it is."""
    created_at: datetime | None = None
    """For insert: when it was told; None: now."""


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done; the log entry has the same fields."""

    action: Action
    memory_layer: Layer
    memory_id: str
    reason: str
    log_id: str


@final
@dataclass(frozen=True, slots=True)
class Known:
    """What an extractor gets to know about an entity: memories of both layers, the newest first."""

    memory_type: MemoryType
    entity_id: str
    profile: Sequence[Document]
    events: Sequence[Document]
    now: datetime
    categories: Mapping[Layer, Sequence[str]] = field(default_factory=lambda: CATEGORIES)
    """The categories of each layer, those of Memory(categories=) included."""


class Extractor(Protocol):
    """A function that turns a text into decisions. Raises ExtractionError."""

    def __call__(self, text: str, known: Known) -> Sequence[Decision]: ...


@final
@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory that recall() found."""

    memory_layer: Layer
    memory_id: str
    score: float
    document: Document


@final
@dataclass(frozen=True, slots=True)
class Forgotten:
    """The receipt of forget(): how many documents of each kind, without their content."""

    profile: int
    events: int
    logs: int
    """Log entries whose entity, reason and metadata were erased."""
    lsn: Lsn
    time: datetime
    is_compacted: bool
    """Whether the database was compacted, so that no file of its directory holds the deleted bytes.
    Backups are not changed."""
