"""A storage for the memory of CrewAI. See docs/integrations/crewai.md."""

from amberdb.integrations.crewai.storage import (
    AmberStorage,
)

__all__ = [
    "AmberStorage",
]
