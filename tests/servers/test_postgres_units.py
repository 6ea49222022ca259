"""The tests of collections, Unique indexes and cursors that are there for directories, on a server.

Those of a directory's own parts are left out, by name.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from amberdb import Collection, Database, Unique
from support.on_server import Databases, adopt
from support.servers import PostgreSQL
from unit.engine import (
    test_collection,
    test_embedding,
    test_multi_vectors,
    test_page,
    test_unique,
)

_BACKGROUND = "no thread embeds in the background: embed_missing() does"
OF_A_DIRECTORY = {
    "test_memtable_knows_the_values_that_a_replay_finds": "memtables",
    "test_unique_over_duplicates_is_refused_and_gone_again": "the other indexes are built still",
    "test_value_of_an_expired_document_is_free": "the document is stored until it is reaped",
    "test_what_was_deferred_gets_its_vector_when_the_embedder_is_back": _BACKGROUND,
    "test_texts_that_cannot_be_embedded_hold_up_no_others": _BACKGROUND,
    "test_what_is_written_meanwhile_ends_no_pause_of_an_embedder_that_is_down": _BACKGROUND,
    "test_documents_from_before_the_declaration_get_their_vectors": _BACKGROUND,
    "test_an_embedder_that_is_down_is_asked_a_few_times": _BACKGROUND,
    "test_close_waits_for_the_call_of_an_embedder_but_not_for_ever": _BACKGROUND,
}


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> str:
    return postgres18.url("postgresql", postgres18.new_database("vector"))


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


modules = (test_collection, test_unique, test_page, test_multi_vectors, test_embedding)
adopt(globals(), modules, OF_A_DIRECTORY)
