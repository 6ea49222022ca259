"""tests/unit/bindings/test_chat_tiers.py on a server."""

from unit.bindings.test_chat_tiers import *  # noqa: F403
