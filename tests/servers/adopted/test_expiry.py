"""tests/unit/engine/test_expiry.py on a server."""

from unit.engine.test_expiry import *  # noqa: F403
