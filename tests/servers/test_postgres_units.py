"""The tests of collections, Unique indexes and cursors that are there for directories, on a server.

Those of a directory's own parts are left out, by name.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from amberdb import Collection, Database, Unique
from support.audited_server import audited_url
from support.on_server import Databases, adopt
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


adopt(globals(), (test_collection, test_unique, test_page, test_feed), OF_A_DIRECTORY)
