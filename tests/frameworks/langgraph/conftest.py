"""A database in memory, and a saver on it, for every test of the adapter."""

from collections.abc import Iterator

import pytest

import amberdb
from amberdb import Database
from amberdb.integrations.langgraph import AmberSaver


@pytest.fixture
def db() -> Iterator[Database]:
    with amberdb.open(":memory:") as db:
        yield db


@pytest.fixture
def saver(db: Database) -> AmberSaver:
    return AmberSaver(db)
