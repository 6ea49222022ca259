"""tests/unit/bindings/test_context_scope.py on a server."""

from unit.bindings.test_context_scope import *  # noqa: F403
