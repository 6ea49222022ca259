"""tests/unit/bindings/test_memory_history.py on a server."""

from unit.bindings.test_memory_history import *  # noqa: F403
