"""Session transcripts of the Claude Agent SDK on AmberDB, with the extra `claude-agent`:
docs/integrations/claude_agent.md."""

try:
    import claude_agent_sdk as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "amberdb.integrations.claude_agent needs the Claude Agent SDK: "
        'pip install "amberdb[claude-agent]"'
    ) from error

from amberdb.integrations.claude_agent.session_store import (
    AmberSessionStore,
)

__all__ = [
    "AmberSessionStore",
]
