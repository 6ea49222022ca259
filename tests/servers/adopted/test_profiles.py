"""tests/unit/bindings/test_profiles.py on a server."""

from unit.bindings.test_profiles import *  # noqa: F403
