"""tests/unit/engine/test_transaction.py on a server."""

from unit.engine.test_transaction import *  # noqa: F403
