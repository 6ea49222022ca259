"""tests/unit/bindings/test_samples.py on a server."""

from unit.bindings.test_samples import *  # noqa: F403
