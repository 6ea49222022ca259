"""tests/unit/bindings/test_context.py on a server."""

from unit.bindings.test_context import *  # noqa: F403
