"""tests/unit/engine/test_feed.py on a server."""

from unit.engine.test_feed import *  # noqa: F403
