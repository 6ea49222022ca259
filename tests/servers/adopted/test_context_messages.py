"""tests/unit/bindings/test_context_messages.py on a server."""

from unit.bindings.test_context_messages import *  # noqa: F403
