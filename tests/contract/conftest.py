"""What the contract suites share."""

from collections.abc import Callable

import pytest

from amberdb import Database
from support import slices


def nothing(_: Database) -> None: ...


def checkpoint(db: Database) -> None:
    db.checkpoint()


@pytest.fixture(params=slices.parameters(2, [checkpoint, nothing]), ids=["store", "memtable"])
def settle(request: pytest.FixtureRequest) -> Callable[[Database], None]:
    """Called between the steps. In `make test` what lies in memory alone is met by the tests that
    settle by themselves."""
    settle: Callable[[Database], None] = request.param
    return settle
