"""tests/unit/engine/test_neighbors.py on a server."""

from unit.engine.test_neighbors import *  # noqa: F403
