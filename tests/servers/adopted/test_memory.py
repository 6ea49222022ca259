"""tests/unit/bindings/test_memory.py on a server."""

from unit.bindings.test_memory import *  # noqa: F403
