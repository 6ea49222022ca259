"""A storage for the memory of CrewAI. See docs/integrations.md."""

from amberdb.integrations.crewai.storage import (
    AmberStorage,
)

__all__ = [
    "AmberStorage",
]
