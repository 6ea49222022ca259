"""The tests of collections, Unique indexes and cursors that are there for directories, on a server.

Those of a directory's own parts are left out, by name.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Collection, Database, Unique
from support.servers import PostgreSQL
from unit.engine import test_collection, test_page, test_unique

OF_A_DIRECTORY = {
    "test_memtable_knows_the_values_that_a_replay_finds": "memtables",
    "test_unique_over_duplicates_is_refused_and_gone_again": "the other indexes are built still",
    "test_value_of_an_expired_document_is_free": "the document is stored until it is reaped",
}
OPTIONS = {"clock", "sync", "document_bytes_max", "transaction_bytes_max", "query_bytes_max"}

_schemas = itertools.count(1)


class Databases:
    """Every database that one test opened, each a schema of one database of the server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names: dict[str, str] = {}
        self._opened: list[Database] = []

    def open(self, name: str | Path = "t.amber", **options: Any) -> Database:
        schema = self._names.setdefault(str(name), f"s{next(_schemas)}")
        kept = {key: value for key, value in options.items() if key in OPTIONS}
        db = amberdb.connect(f"{self._url}?schema={schema}", **kept)
        self._opened.append(db)
        return db

    def close(self) -> None:
        for db in self._opened:
            db.close()


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> str:
    return postgres18.url("postgresql", postgres18.new_database())


@pytest.fixture
def open_db(url: str) -> Iterator[Any]:
    databases = Databases(url)
    yield databases.open
    databases.close()


@pytest.fixture
def filled(db: Database) -> Database:
    users = db.collection("user", indexes=[Unique("name", name="by_name")])
    users.put_many({"id": id, "name": id.upper()} for id in "abc")
    return db


@pytest.fixture
def notes(db: Database) -> Collection:
    return db.collection("note")


for _module in (test_collection, test_unique, test_page):
    for _name, _thing in vars(_module).items():
        is_fixture = type(_thing).__name__ == "FixtureFunctionDefinition"
        is_test = _name.startswith("test_") and _name not in OF_A_DIRECTORY
        if (is_test or is_fixture) and _name not in globals():
            globals()[_name] = _thing
