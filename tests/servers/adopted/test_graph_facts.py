"""tests/unit/bindings/test_graph_facts.py on a server."""

from unit.bindings.test_graph_facts import *  # noqa: F403
