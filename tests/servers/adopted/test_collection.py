"""tests/unit/engine/test_collection.py on a server."""

from unit.engine.test_collection import *  # noqa: F403
