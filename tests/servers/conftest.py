"""What the tests with real servers share: one server of each kind for each worker, and the mark
`servers`, by which `make test` and `make test-all` leave them out.

Each server is for many tests: a test takes a new_database() for itself, and one that kills a
server starts its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.audited_server import audited_url
from support.s3 import S3Server, seaweed
from support.servers import MariaDB, PgBouncer, PostgreSQL, mariadb, pgbouncer, postgres


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):  # the hook is given those of other folders too
            item.add_marker("servers")


@pytest.fixture(scope="session")
def postgres18() -> Iterator[PostgreSQL]:
    with postgres(18) as server:
        yield server


@pytest.fixture(scope="session")
def postgres16() -> Iterator[PostgreSQL]:
    with postgres(16) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    with mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer18(postgres18: PostgreSQL) -> Iterator[PgBouncer]:
    """In front of `postgres18`."""
    with pgbouncer(postgres18) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with seaweed() as server:
        yield server


@pytest.fixture
def url(postgres18: PostgreSQL) -> Iterator[str]:
    """Of a new database on `postgres18`, which is checked at the end."""
    with audited_url(postgres18) as url:
        yield url
