"""tests/unit/engine/test_multi_vectors.py on a server."""

from unit.engine.test_multi_vectors import *  # noqa: F403
