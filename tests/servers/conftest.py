"""What the tests with real servers share: one server of each kind for each worker, and the mark
`servers`, by which `make test` and `make test-all` leave them out.

Each server is for many tests: a test takes a new_database() for itself, and one that kills a
server starts its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import amberdb
from amberdb import Database, OpenOptions
from support.audited_server import audited_url
from support.racing import Racers, racers
from support.s3 import S3Server, seaweed
from support.servers import (
    MariaDB,
    PgBouncer,
    PostgreSQL,
    debian_version,
    mariadb,
    pgbouncer,
    postgres,
)


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
def debian_postgres() -> Iterator[PostgreSQL]:
    with postgres(debian_version()) as server:
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


# -- the database of a test ----------------------------------------------------------------------


@pytest.fixture
def extensions() -> tuple[str, ...]:
    """Those that the database has; a file whose tests need "vector" has this fixture too."""
    return ()


@pytest.fixture
def url(postgres18: PostgreSQL, extensions: tuple[str, ...]) -> Iterator[str]:
    """Of a new database on `postgres18`, which is checked at the end."""
    with audited_url(postgres18, *extensions) as url:
        yield url


@pytest.fixture
def pooler_url(pgbouncer18: PgBouncer, url: str) -> str:
    """Of the same database, behind a pooler of transactions."""
    name = url.rpartition("/")[2]
    return pgbouncer18.url("postgresql", name) + "?prepared_statements=false"


@pytest.fixture
def options() -> OpenOptions:
    """Of `db` and `other`; a file may have its own."""
    return {}


@pytest.fixture
def db(url: str, options: OpenOptions) -> Iterator[Database]:
    with amberdb.connect(url, **options) as db:
        yield db


@pytest.fixture
def other(db: Database, url: str, options: OpenOptions) -> Iterator[Database]:
    """The same database as another process has it."""
    with amberdb.connect(url, **options) as other:
        yield other


@pytest.fixture(scope="module")
def both() -> Iterator[Racers]:
    """Two programs."""
    with racers() as both:
        yield both
