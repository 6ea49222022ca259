"""tests/unit/bindings/test_context_sessions.py on a server."""

from unit.bindings.test_context_sessions import *  # noqa: F403
