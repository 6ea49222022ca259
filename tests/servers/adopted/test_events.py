"""tests/unit/bindings/test_events.py on a server."""

from unit.bindings.test_events import *  # noqa: F403
