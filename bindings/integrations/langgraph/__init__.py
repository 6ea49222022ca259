"""LangGraph's checkpoints, store and cache in AmberDB, with the extra `langgraph`:
docs/integrations/langgraph.md."""

try:
    import langgraph.checkpoint.base as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'amberdb.integrations.langgraph needs LangGraph: pip install "amberdb[langgraph]"'
    ) from error

from amberdb.integrations.langgraph.cache import (
    AmberCache,
)
from amberdb.integrations.langgraph.saver import (
    AmberSaver,
)
from amberdb.integrations.langgraph.store import (
    AmberStore,
)

__all__ = [
    "AmberCache",
    "AmberSaver",
    "AmberStore",
]
