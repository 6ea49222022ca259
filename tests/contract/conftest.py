"""What the contract suites share."""

from collections.abc import Callable

import pytest

from amberdb import Database


def nothing(_: Database) -> None: ...


def checkpoint(db: Database) -> None:
    db.checkpoint()


@pytest.fixture(params=[nothing, checkpoint], ids=["memtable", "store"])
def settle(request: pytest.FixtureRequest) -> Callable[[Database], None]:
    """Called between the steps."""
    settle: Callable[[Database], None] = request.param
    return settle
