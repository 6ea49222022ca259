"""Events of agents: a recorder and the stores it writes to. docs/events.md."""

from amberdb.events.event import (
    AgentEvent,
    EventStore,
    EventType,
    Filters,
    Moved,
    Stats,
    clean_up,
    error_rate,
    migrate,
)
from amberdb.events.files import (
    FileEventStore,
    Format,
)
from amberdb.events.in_memory import (
    AmberEventStore,
    InMemoryEventStore,
    NullEventStore,
)
from amberdb.events.recorder import (
    EventsLostError,
    Recorder,
)

__all__ = [
    "AgentEvent",
    "EventStore",
    "EventType",
    "Filters",
    "Moved",
    "Stats",
    "clean_up",
    "error_rate",
    "migrate",
    "FileEventStore",
    "Format",
    "AmberEventStore",
    "InMemoryEventStore",
    "NullEventStore",
    "EventsLostError",
    "Recorder",
]
