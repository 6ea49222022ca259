"""tests/unit/bindings/test_context_blocks.py on a server."""

from unit.bindings.test_context_blocks import *  # noqa: F403
