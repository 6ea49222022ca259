"""tests/unit/engine/test_declarations.py on a server."""

from unit.engine.test_declarations import *  # noqa: F403
