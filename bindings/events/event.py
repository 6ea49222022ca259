"""Events of agents.

Invariants:
- An event is immutable, and its timestamp has a time zone.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, final
from uuid import uuid4

from amberdb import Document, InvalidDocumentError
from amberdb._shared.checks import check_str, check_time
from amberdb._shared.clock import SteadyClock


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


def event_type_of(value: Any) -> EventType:
    """Raises InvalidDocumentError for a value that is no type of events."""
    try:
        return EventType(value)
    except ValueError:
        known = ", ".join(EventType)
        raise InvalidDocumentError(
            f"event_type must be one of {known}, not {value!r}", field="event_type"
        ) from None


def _new_id() -> str:
    return f"evt_{uuid4().hex}"


_now: Final = SteadyClock(time.time)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """One event. Raises InvalidDocumentError."""

    agent_name: str
    session_id: str
    event_type: EventType
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    event_id: str = field(default_factory=_new_id)
    timestamp: datetime = field(default_factory=_now)

    def __post_init__(self) -> None:
        check_time("timestamp", self.timestamp)
        for name in ("event_id", "agent_name", "session_id"):
            check_str(name, getattr(self, name))
        object.__setattr__(self, "event_type", event_type_of(self.event_type))

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
        """The event of a map from to_map(). Raises KeyError, ValueError for any other map."""
        names = ("event_id", "agent_name", "session_id", "event_type", "timestamp")
        fields = {name: stored[name] for name in names}
        return cls(**fields, data=stored.get("data", {}), metadata=stored.get("metadata", {}))
