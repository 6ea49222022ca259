"""Sessions of the OpenAI Agents SDK on AmberDB, with the extra `openai-agents`:
docs/integrations/openai_agents.md."""

try:
    import agents as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "amberdb.integrations.openai_agents needs the OpenAI Agents SDK: "
        'pip install "amberdb[openai-agents]"'
    ) from error

from amberdb.integrations.openai_agents.session import (
    AmberSession,
)

__all__ = [
    "AmberSession",
]
