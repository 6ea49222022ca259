"""tests/unit/bindings/test_graph.py on a server."""

from unit.bindings.test_graph import *  # noqa: F403
