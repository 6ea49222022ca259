"""What the HTTP server is asked and what it answers, as the OpenAPI document tells it.

Invariants:
- A request with a field that is not known is refused: a misspelt one would be lost in silence.
- Times have a zone.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from amberdb.memory.types import Action, Layer, MemoryType

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


def _is_written_out(given: object) -> object:
    """Raises ValueError for seconds since 1970, which pydantic would take."""
    if isinstance(given, str) and re.match(r"\d{4}-\d\d-\d\d", given):
        return given
    raise ValueError("a time is written as 2026-01-31T12:00:00+00:00")


Moment = Annotated[AwareDatetime, BeforeValidator(_is_written_out)]


class Request(BaseModel):
    """Of JSON."""

    model_config = ConfigDict(extra="forbid")


class Remember(Request):
    """A memory for one layer, or with `auto_extract` a text for the extractor."""

    content: Text
    memory_layer: Layer | None = None
    auto_extract: StrictBool = False
    category: str | None = None
    metadata: dict[str, Any] = {}
    is_permanent: StrictBool | None = None
    expiry_date: Moment | None = None
    reason: str = ""


class Change(Request):
    """Of a memory: what is not given stays."""

    content: Text | None = None
    reason: str = ""
    category: str | None = None
    metadata: dict[str, Any] = {}
    is_permanent: StrictBool | None = None
    expiry_date: Moment | None = None


class Turn(Request):
    """Of a conversation."""

    user_message: str
    assistant_message: str
    conversation_id: Text
    user_id: Text
    important: StrictBool = False
    metadata: dict[str, Any] = {}


class Done(BaseModel):
    """What was done: one entry of the log."""

    action: Action
    memory_layer: Layer
    memory_id: str
    reason: str
    log_id: str


class Outcomes(BaseModel):
    """Of all that was decided on."""

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
    """A page; `cursor` is for `after`, None at the end."""

    memories: list[MemoryDocument]
    cursor: str | None


class Entry(BaseModel):
    """Of the log. Of one that was forgotten only what was done, and when."""

    id: str
    memory_id: str
    memory_layer: Layer
    action: Action
    reason: str | None
    metadata: dict[str, Any] | None = None
    created_at: datetime


class Entries(BaseModel):
    """A page; `cursor` is for `after`, None at the end."""

    logs: list[Entry]
    cursor: str | None


class Hit(BaseModel):
    """A memory that was found."""

    memory_layer: Layer
    memory_id: str
    score: float
    document: MemoryDocument


class Hits(BaseModel):
    """The best first."""

    hits: list[Hit]


class Receipt(BaseModel):
    """Of what was forgotten."""

    profile: int
    events: int
    logs: int
    lsn: int
    time: datetime
    is_compacted: bool


class SavedTurn(BaseModel):
    """As ChatBuffer.save_chat() tells it."""

    success: bool
    hot_stored: bool
    sink_stored: bool
    token_count: int
    conversation_id: str
    cid: str
    note: str


class FlushedTurns(BaseModel):
    """As ChatBuffer.flush() tells it."""

    success: bool
    total_pending: int
    flushed_count: int
    failed_count: int


class Turns(BaseModel):
    """The last ones of a conversation, the oldest first."""

    turns: list[dict[str, Any]]


class Health(BaseModel):
    """That it answers, and of what."""

    status: Literal["ok"]
    version: str


class Statistics(BaseModel):
    """As db.stats() and ChatBuffer.get_stats() tell them."""

    database: dict[str, Any]
    chat: dict[str, Any]


class Problem(BaseModel):
    """RFC 9457: what went wrong, and in `detail` what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    """The error's class."""
    errors: list[dict[str, Any]] | None = None
    """Where a request is not as it should be: `loc` and `msg` of each."""
