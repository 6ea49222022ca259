"""tests/unit/engine/test_embedding.py on a server."""

from unit.engine.test_embedding import *  # noqa: F403
