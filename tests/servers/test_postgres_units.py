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
from support.audited_server import audited_url
from support.servers import PostgreSQL
from unit.engine import test_collection, test_feed, test_page, test_unique

OF_A_DIRECTORY = {
    "test_memtable_knows_the_values_that_a_replay_finds": "memtables",
    "test_unique_over_duplicates_is_refused_and_gone_again": "the other indexes are built still",
    "test_value_of_an_expired_document_is_free": "the document is stored until it is reaped",
    # The feed, of which test_postgres_feed.py has the same promises:
    "test_changes_are_told_in_order_with_their_documents": "a version is no position in the feed",
    "test_only_what_is_behind_since_is_told": "a version is no position in the feed",
    "test_what_is_not_durable_is_not_told": "it is made durable, and told",
    "test_a_subscriber_may_begin_in_the_past": "Lsn 0 is before the outbox",
    "test_a_checkpoint_lets_the_log_go": "segments of the log",
    "test_a_subscriber_holds_the_log_back_until_it_acknowledges": "segments of the log",
    "test_the_slowest_subscriber_counts_until_it_is_removed": "segments of the log",
    "test_log_is_kept_for_a_subscriber_up_to_the_limit": "segments of the log",
    "test_changes_begin_at_the_oldest_record_though_a_checkpoint_recycles_it": "the log",
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
        db.changes()  # from now on writers fill the outbox
        self._opened.append(db)
        return db

    def close(self) -> None:
        for db in self._opened:
            db.close()


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> Iterator[str]:
    with audited_url(postgres18) as url:
        yield url


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


for _module in (test_collection, test_unique, test_page, test_feed):
    for _name, _thing in vars(_module).items():
        is_fixture = type(_thing).__name__ == "FixtureFunctionDefinition"
        is_test = _name.startswith("test_") and _name not in OF_A_DIRECTORY
        if (is_test or is_fixture) and _name not in globals():
            globals()[_name] = _thing
