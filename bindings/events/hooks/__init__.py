"""Hooks that record what an agent of another framework does: docs/events.md.

None of the frameworks is needed for this package, or imported by it before a hook is made.
"""

from amberdb.events.hooks.langchain import (
    langchain_callback,
)
from amberdb.events.hooks.openai_agents import (
    openai_agents_processor,
)
from amberdb.events.hooks.opentelemetry import (
    opentelemetry_processor,
)

__all__ = [
    "langchain_callback",
    "openai_agents_processor",
    "opentelemetry_processor",
]
