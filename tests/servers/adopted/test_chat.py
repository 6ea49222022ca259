"""tests/unit/bindings/test_chat.py on a server."""

from unit.bindings.test_chat import *  # noqa: F403
