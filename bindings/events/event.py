"""Events of agents.

Invariants:
- An event is immutable, its timestamp has a time zone, and every store can hold its data: what
  cannot be stored is replaced when the event is made (amberdb._shared.storable).
- An event that another program has written is read with defaults.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, final
from uuid import uuid4

from amberdb import Document, InvalidDocumentError
from amberdb._shared.checks import check_str
from amberdb._shared.clock import SteadyClock
from amberdb._shared.storable import storable_map, storable_text


class EventType(StrEnum):
    """The types of events. The `data` of each type: docs/events.md."""

    USER_MESSAGE = "user_message"
    MODEL_RESPONSE = "model_response"
    TOOL_CALL_START = "tool_call_start"
    TOOL_CALL_SUCCESS = "tool_call_success"
    TOOL_CALL_ERROR = "tool_call_error"
    AGENT_INIT = "agent_init"
    AGENT_ERROR = "agent_error"
    MIDDLEWARE_PRE = "middleware_pre"
    MIDDLEWARE_POST = "middleware_post"
    CUSTOM = "custom"


_TYPES: Final = {text: kind for kind in EventType for text in (kind.name, kind.value)}


def event_type_of(value: Any) -> EventType:
    """The type of a value or of a name of EventType. Raises InvalidDocumentError."""
    try:
        return _TYPES[value]
    except (KeyError, TypeError):
        known = ", ".join(EventType)
        raise InvalidDocumentError(
            f"event_type must be one of {known}, not {value!r}: use EventType.CUSTOM for others",
            field="event_type",
        ) from None


def time_of(name: str, value: Any) -> datetime:
    """A datetime with a time zone; one without is taken as local time, as `datetime.now()` is.
    Raises InvalidDocumentError."""
    if not isinstance(value, datetime) or value != value:
        raise InvalidDocumentError(f"{name} must be a datetime, not {value!r}", field=name)
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError, OSError):
        raise InvalidDocumentError(
            f"{name} must be a datetime of the years 1 to 9999 of UTC, not {value!r}", field=name
        ) from None


def moment_of(value: Any) -> datetime:
    """The time that a program has stored: a datetime, ISO 8601 text, or seconds or milliseconds
    since 1970; without a zone local time. Raises InvalidDocumentError."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int | float):
            value = datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
    except (ValueError, OverflowError, OSError):
        pass  # time_of() names the value
    return time_of("timestamp", value)


def _map_of(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidDocumentError(f"{name} must be a map, not {value!r}", field=name)
    return storable_map(value)  # pyright: ignore[reportUnknownArgumentType]  # any map


def _new_id() -> str:
    return f"evt_{uuid4().hex}"


_MILLISECONDS: Final = 1e11
"""Larger numbers are milliseconds: as seconds they would be after the year 5000."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
now: Final = SteadyClock(time.time)
"""The time of events that are made without one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """One event. Raises InvalidDocumentError.

    event_type   an EventType, its value or its name
    timestamp    a time without a zone is local time
    data         any map: what no store can hold is replaced, a Decimal by its text for one
    """

    agent_name: str
    session_id: str
    event_type: EventType
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    event_id: str = field(default_factory=_new_id)
    timestamp: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        # Fields that are as they have to be, as of all events that are read, cost a look.
        for name in ("event_id", "agent_name", "session_id"):
            value = getattr(self, name)
            if type(value) is not str or not value.isascii():
                check_str(name, value)
                object.__setattr__(self, name, storable_text(value))
        if not self.event_id:
            raise InvalidDocumentError("event_id must not be empty: leave it out", field="event_id")
        if type(self.event_type) is not EventType:
            object.__setattr__(self, "event_type", event_type_of(self.event_type))
        if type(self.timestamp) is not datetime or self.timestamp.tzinfo is not UTC:
            object.__setattr__(self, "timestamp", time_of("timestamp", self.timestamp))
        object.__setattr__(self, "data", _map_of("data", self.data))
        object.__setattr__(self, "metadata", _map_of("metadata", self.metadata))

    def to_map(self) -> Document:
        """The event as a storable map."""
        return {
            "event_id": self.event_id,
            "agent_name": self.agent_name,
            "session_id": self.session_id,
            "event_type": self.event_type.value,
            "timestamp": self.timestamp,
            "data": dict(self.data),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_map(cls, stored: Mapping[str, Any]) -> "AgentEvent":
        """The event of a map from to_map(). What is missing in any other map has a default, and a
        type that is none of EventType is CUSTOM, with its name in the metadata. Raises
        InvalidDocumentError for values of wrong types."""
        kind: Any = stored.get("event_type")
        metadata: Any = stored.get("metadata") or {}
        if isinstance(kind, str):  # str() writes a member of some enums with the name of its class
            kind = _TYPES.get(kind.removeprefix("EventType."), kind)
        if type(kind) is not EventType:
            metadata = {"event_type": kind, **_map_of("metadata", metadata)}
            kind = EventType.CUSTOM
        return cls(
            event_id=stored.get("event_id") or stored.get("id") or _new_id(),
            agent_name=stored.get("agent_name") or "",
            session_id=stored.get("session_id") or "",
            event_type=kind,
            timestamp=moment_of(stored.get("timestamp") or _EPOCH),
            data=stored.get("data") or {},
            metadata=metadata,
        )
