"""A session service and a memory service for Google's ADK. See docs/integrations/google_adk.md."""

from amberdb.integrations.google_adk.memories import (
    AmberMemoryService,
)
from amberdb.integrations.google_adk.sessions import (
    AmberSessionService,
)

__all__ = [
    "AmberSessionService",
    "AmberMemoryService",
]
