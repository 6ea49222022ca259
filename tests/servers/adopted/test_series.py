"""tests/unit/bindings/test_series.py on a server."""

from unit.bindings.test_series import *  # noqa: F403
