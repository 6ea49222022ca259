"""tests/unit/bindings/test_chat_users.py on a server."""

from unit.bindings.test_chat_users import *  # noqa: F403
