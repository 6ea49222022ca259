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
from unit.engine import (
    test_collection,
    test_embedding,
    test_feed,
    test_multi_vectors,
    test_page,
    test_unique,
)

_BACKGROUND = "no thread embeds in the background: embed_missing() does"
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
    "test_what_was_deferred_gets_its_vector_when_the_embedder_is_back": _BACKGROUND,
    "test_texts_that_cannot_be_embedded_hold_up_no_others": _BACKGROUND,
    "test_what_is_written_meanwhile_ends_no_pause_of_an_embedder_that_is_down": _BACKGROUND,
    "test_documents_from_before_the_declaration_get_their_vectors": _BACKGROUND,
    "test_an_embedder_that_is_down_is_asked_a_few_times": _BACKGROUND,
    "test_close_waits_for_the_call_of_an_embedder_but_not_for_ever": _BACKGROUND,
}


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> Iterator[str]:
    with audited_url(postgres18, "vector") as url:
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


modules = (test_collection, test_unique, test_page, test_multi_vectors, test_embedding, test_feed)
adopt(globals(), modules, OF_A_DIRECTORY)
