"""tests/unit/engine/test_snapshot.py on a server."""

from unit.engine.test_snapshot import *  # noqa: F403
