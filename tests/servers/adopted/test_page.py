"""tests/unit/engine/test_page.py on a server."""

from unit.engine.test_page import *  # noqa: F403
