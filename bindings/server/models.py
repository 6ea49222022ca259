"""Requests and responses of the HTTP server, as in its OpenAPI document.

Invariants:
- A request with an unknown field is rejected: a misspelt field must not be dropped silently.
- Times have a zone.
"""

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
)

from amberdb.events import EventType
from amberdb.memory import Action, Layer, MemoryType

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


def _check_iso(value: object) -> object:
    """Raises ValueError for epoch seconds, which pydantic would accept."""
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        return value
    raise ValueError("write a time as 2026-01-31T12:00:00+00:00")


Moment = Annotated[AwareDatetime, BeforeValidator(_check_iso)]


def _check_numbers(value: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for NaN and infinity, also as 1e999: answers could not return them."""
    json.dumps(value, allow_nan=False)
    return value


Metadata = Annotated[dict[str, Any], AfterValidator(_check_numbers)]


class Request(BaseModel):
    """The base of JSON bodies."""

    model_config = ConfigDict(extra="forbid")


class Remember(Request):
    """A memory for a layer, or with `auto_extract` a text for the extractor."""

    content: Text
    memory_layer: Layer | None = None
    auto_extract: StrictBool = False
    category: str | None = None
    metadata: Metadata = {}
    is_permanent: StrictBool | None = None
    expiry_date: Moment | None = None
    reason: str = ""
    memory_id: Text | None = None
    """Its id; by default a new one."""
    created_at: Moment | None = None


class Change(Request):
    """A change of a memory; fields that are not set stay."""

    content: Text | None = None
    reason: str = ""
    category: str | None = None
    metadata: Metadata = {}
    is_permanent: StrictBool | None = None
    expiry_date: Moment | None = None


class Turn(Request):
    """One turn of a conversation."""

    user_message: str
    assistant_message: str
    conversation_id: Text
    user_id: Text
    important: StrictBool = False
    metadata: Metadata = {}


class Done(BaseModel):
    """What was done with a memory, as in its log entry."""

    action: Action
    memory_layer: Layer
    memory_id: str
    reason: str
    log_id: str


class Outcomes(BaseModel):
    """What was done with each decision."""

    outcomes: list[Done]


class MemoryDocument(BaseModel):
    """A memory of either layer."""

    id: str
    memory_type: MemoryType
    entity_id: str
    content: str
    category: str | None
    metadata: dict[str, Any]
    embedding_id: str | None
    is_permanent: bool
    expiry_date: datetime | None
    created_at: datetime
    updated_at: datetime


class Memories(BaseModel):
    """One page. Pass `cursor` as `after` to get the next; it is null at the end."""

    memories: list[MemoryDocument]
    cursor: str | None


class Undo(Request):
    """Why a change is taken back."""

    reason: str = ""


class Entry(BaseModel):
    """A log entry: `before` and `after` are the memory before and after it, null where it did not
    exist. After a forget it has only the action and its time."""

    id: str
    memory_id: str
    memory_layer: Layer
    action: Action
    reason: str | None
    metadata: dict[str, Any] | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    created_at: datetime


class Entries(BaseModel):
    """One page. Pass `cursor` as `after` to get the next; it is null at the end."""

    logs: list[Entry]
    cursor: str | None


class Hit(BaseModel):
    """A memory that was found."""

    memory_layer: Layer
    memory_id: str
    score: float
    document: MemoryDocument


class Hits(BaseModel):
    """Hits, the best first. Pass `cursor` as `after` to get the next; it is null at the end."""

    hits: list[Hit]
    cursor: str | None


class Receipt(BaseModel):
    """The receipt of a forget."""

    profile: int
    events: int
    logs: int
    lsn: int
    time: datetime
    is_compacted: bool


class SavedTurn(BaseModel):
    """The result of ChatBuffer.save_chat()."""

    success: bool
    hot_stored: bool
    redis_stored: bool
    sink_stored: bool
    supabase_stored: bool
    token_count: int
    conversation_id: str
    cid: str
    note: str


class FlushedTurns(BaseModel):
    """The result of ChatBuffer.flush()."""

    success: bool
    total_pending: int
    flushed_count: int
    failed_count: int


class Turns(BaseModel):
    """The last turns of a conversation, the oldest first; without those of the sink when it did not
    answer."""

    turns: list[dict[str, Any]]
    is_complete: bool


class DeletedTurns(BaseModel):
    """How many turns were deleted; `sink_deleted` is null when the sink cannot delete."""

    success: bool
    hot_deleted: int
    sink_deleted: int | None


class Document(BaseModel):
    """A stored document."""

    model_config = ConfigDict(extra="allow")


class Documents(BaseModel):
    """One page. Pass `cursor` as `after` to get the next; it is null at the end."""

    documents: list[Document]
    cursor: str | None


class Held(BaseModel):
    """By collection what is held of somebody."""

    collections: dict[str, list[Document]]


class Backup(BaseModel):
    """A backup that may still hold what was erased."""

    path: str
    is_full: bool
    lsn: int
    created: datetime


class Erased(BaseModel):
    """The receipt of an erasure, which the database keeps: by collection how many documents."""

    id: str
    collections: dict[str, int]
    reason: str
    lsn: int
    time: datetime
    completed: datetime | None
    backups: list[Backup]
    subscribers: list[str]


class FoundDocument(BaseModel):
    """A document that a search found."""

    id: str
    score: float
    document: Document


class Found(BaseModel):
    """Hits, the best first. Pass `cursor` as `after` to get the next; it is null at the end."""

    hits: list[FoundDocument]
    cursor: str | None


class Counted(BaseModel):
    """How many there are, or were changed."""

    count: int


class Identified(BaseModel):
    """The id of what was stored."""

    id: str


class Entity(Request):
    """An entity of the knowledge graph."""

    name: Text
    entity_type: Text
    observations: list[str] = []
    properties: Metadata = {}


class Relation(Request):
    """A relation between two entities."""

    source: Text
    relation_type: Text
    target: Text
    properties: Metadata = {}
    valid_from: Moment | None = None
    valid_to: Moment | None = None


class Event(Request):
    """An event of an agent. Without id and time it gets new ones."""

    agent_name: Text
    session_id: Text
    event_type: EventType
    data: Metadata = {}
    metadata: Metadata = {}
    event_id: Text | None = None
    timestamp: Moment | None = None


class EventStatistics(BaseModel):
    """How many events there are, of which types, from when to when."""

    total_events: int
    by_type: dict[str, int]
    first_event: datetime | None
    last_event: datetime | None


class NewUser(Request):
    """A user of agent context."""

    username: Text


class NewSession(Request):
    """A session of a user in a role."""

    user_id: Text
    role_name: Text
    session_id: Text | None = None
    token_budget: int | None = None
    metadata: Metadata = {}


class PartText(Request):
    """The text of a part of the context."""

    content: str


class Note(Request):
    """An archival memory."""

    content: Text
    metadata: Metadata = {}


class DeletedSessions(BaseModel):
    """How many sessions and documents were deleted."""

    model_config = ConfigDict(extra="allow")


class Health(BaseModel):
    """The server answers, and its version."""

    status: Literal["ok"]
    version: str


class Statistics(BaseModel):
    """The results of db.stats() and ChatBuffer.get_stats()."""

    database: dict[str, Any]
    chat: dict[str, Any]


class Problem(BaseModel):
    """An error as in RFC 9457; `detail` says what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    """The class of the error."""
    errors: list[dict[str, Any]] | None = None
    """`loc` and `msg` of each invalid field of the request."""
