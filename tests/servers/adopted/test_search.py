"""tests/unit/engine/test_search.py on a server."""

from unit.engine.test_search import *  # noqa: F403
