"""Events of agents: a recorder, and the stores it writes to: docs/events.md."""

from amberdb.events.collection import (
    AmberEventStore,
)
from amberdb.events.event import (
    AgentEvent,
    EventType,
)
from amberdb.events.files import (
    FileEventStore,
    Format,
)
from amberdb.events.in_memory import (
    InMemoryEventStore,
    NullEventStore,
)
from amberdb.events.lightagent import (
    Imported,
    import_lightagent,
)
from amberdb.events.queue import (
    EventsLostError,
    EventsPendingError,
)
from amberdb.events.recorder import (
    Recorder,
)
from amberdb.events.store import (
    EventStore,
    FilterFields,
    Filters,
    Stats,
    error_rate,
)
from amberdb.events.upkeep import (
    Moved,
    clean_up,
    migrate,
)

__all__ = [
    "AgentEvent",
    "EventStore",
    "EventType",
    "FilterFields",
    "Filters",
    "Imported",
    "Moved",
    "Stats",
    "clean_up",
    "error_rate",
    "import_lightagent",
    "migrate",
    "FileEventStore",
    "Format",
    "AmberEventStore",
    "InMemoryEventStore",
    "NullEventStore",
    "EventsLostError",
    "EventsPendingError",
    "Recorder",
]
