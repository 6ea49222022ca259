"""tests/unit/engine/test_unique.py on a server."""

from unit.engine.test_unique import *  # noqa: F403
