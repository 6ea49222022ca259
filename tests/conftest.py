"""What every test shares: the path of tests/support, audited databases, Hypothesis profiles.

Profiles (HYPOTHESIS_PROFILE):
    quick     few examples, while writing code
    default   the same examples each time: one state of the code, one verdict of `make test`
    campaign  many random examples; `make fuzz` prints the seed of each round
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# With --import-mode=importlib nothing is put on the path; `support.xxx` and `style.repo` need this.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from amberdb import Database
    from support.databases import OpenDatabase

# No deadline: a shared machine may take a second for anything, and that is no fault of the code.
# The health checks left out measure time as well.
_COMMON = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("quick", _COMMON, max_examples=20, derandomize=True)
settings.register_profile("default", _COMMON, max_examples=100, derandomize=True)
settings.register_profile("campaign", _COMMON, max_examples=1000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def open_db(tmp_path: Path) -> "Iterator[OpenDatabase]":
    """`open_db(**options)` opens tmp_path/"t.amber", or opens it again after close(); whatever is
    open at the end of the test is checked and closed."""
    from support.databases import Databases  # here, so that tests of less import no engine

    databases = Databases(tmp_path)
    yield databases.open
    databases.finish()


@pytest.fixture
def db(open_db: "OpenDatabase") -> "Database":
    """One open database with small options and no background work."""
    return open_db()
