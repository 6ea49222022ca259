"""tests/unit/bindings/test_graph_names.py on a server."""

from unit.bindings.test_graph_names import *  # noqa: F403
