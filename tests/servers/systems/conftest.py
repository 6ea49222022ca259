"""The tests of the systems that are there for directories, each with its databases on a server.

A test that asks for what a directory alone has is in LEFT_OUT, with the reason.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support.audited_server import audited_url
from support.on_server import Databases
from support.servers import PostgreSQL

_COUNTS = "it counts commits by Lsns, which a server gives to transactions"
LEFT_OUT: Final[dict[str, str]] = {
    "test_a_turn_of_a_clock_that_was_ahead_is_due": "the clock is the server's: no ClockWarning",
    "test_many_archival_memories_are_embedded_and_stored_in_batches": _COUNTS,
    "test_every_writing_method_joins_a_transaction_of_the_caller": _COUNTS,
    "test_a_session_takes_along_what_hangs_on_it_in_one_commit": _COUNTS,
    "test_a_user_takes_along_all_sessions": _COUNTS,
    "test_what_a_session_holds_does_not_meet_the_limit_of_a_transaction": "deletions are small",
    "test_events_are_stored_in_the_transaction_of_the_caller": "it opens the path",
    "test_a_new_target_ends_the_old_one_in_the_same_commit": _COUNTS,
    "test_relations_are_deleted_in_bounded_commits": _COUNTS,
    "test_an_entity_gets_another_name_with_its_relations": _COUNTS,
    "test_two_entities_become_one": _COUNTS,
    "test_a_source_and_an_alias_are_looked_up_in_an_index": "it looks into a class of a directory",
    "test_forget_leaves_nothing_in_any_file": "files, and the size of the log",
    "test_memory_does_not_grow_with_the_documents": "a batch of a scan grows to 1,024 documents",
}
"""By the name of the test."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    left_out = [
        item
        for item in items
        if item.path.is_relative_to(here) and item.name.partition("[")[0] in LEFT_OUT
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> Iterator[str]:
    with audited_url(postgres18, "vector") as url:
        yield url


@pytest.fixture
def open_db(url: str) -> Iterator[Any]:
    databases = Databases(url)
    yield databases.open
    databases.close()
