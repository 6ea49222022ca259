"""tests/unit/engine/test_search_paging.py on a server."""

from unit.engine.test_search_paging import *  # noqa: F403
