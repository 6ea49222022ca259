"""The tests of search, of its pages and of neighbors that are there for directories, on a server.

Those of a directory's own parts are left out, by name.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from support.on_server import Databases, adopt
from support.servers import PostgreSQL
from unit.engine import test_neighbors, test_search, test_search_paging

OF_A_DIRECTORY = {
    "test_a_change_of_something_else_keeps_the_row": "memtables",
    "test_a_closed_database_that_was_searched_has_no_file_open": "its files",
    "test_many_checkpoints_leave_few_segments": "segments",
    "test_segments_of_the_dead_are_written_again": "segments",
    "test_a_cursor_goes_on_in_another_process": "the other one opens a path",
    "test_an_index_that_is_being_built_is_finished_first": "the declaration has built it",
    "test_a_search_waits_for_an_index_in_the_making_and_builds_it_itself": "as before",
    "test_the_state_of_the_cache_changes_no_answer": "its files",
    "test_a_reader_sees_neighbors_too": "read_only",
}


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> str:
    return postgres18.url("postgresql", postgres18.new_database("vector"))


@pytest.fixture
def open_db(url: str) -> Iterator[Any]:
    databases = Databases(url)
    yield databases.open
    databases.close()


modules = (test_search, test_search_paging, test_neighbors)
adopt(globals(), modules, OF_A_DIRECTORY)
