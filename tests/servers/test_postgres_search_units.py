"""The tests of search, of its pages and of neighbors that are there for directories, on a server.

Those of a directory's own parts are left out, by name, and so are those that ask by a vector.
"""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from amberdb import Collection, Database, Ordered, Text
from amberdb.index.registry import IndexSpec
from support.databases import FakeClock
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
    "test_a_reader_sees_neighbors_too": "read_only",
}
BY_VECTOR = {  # until there are Vector indexes
    "test_a_text_without_words_finds_nothing_and_says_why",
    "test_explain_says_how_a_search_was_answered",
    "test_explain_counts_the_documents_that_a_postfilter_checked",
    "test_vectors_come_back_whole_and_can_be_put_again",
    "test_what_is_no_vector_is_refused_before_anything_is_written",
    "test_documents_without_a_vector_are_found_by_their_words",
    "test_a_filter_or_an_order_may_not_compare_vectors",
    "test_several_vector_fields",
    "test_a_graph_finds_what_exact_search_finds_whatever_changes",
    "test_the_state_of_the_cache_changes_no_answer",
    "test_a_document_that_both_find_comes_first",
    "test_a_convex_score_is_the_weighted_mean_of_both_scales",
    "test_a_convex_score_does_not_depend_on_the_lists",
    "test_a_document_in_neither_list_changes_no_order",
    "test_no_vector_at_all_is_refused",
    "test_a_search_reads_only_the_documents_that_it_returns",
    "test_a_search_by_both_gives_as_many_as_are_asked_for",
    "test_diversity_passes_over_what_is_alike",
    "test_a_snapshot_searches_its_own_lsn",
    "test_what_a_transaction_takes_back_leaves_no_row_behind",
    "test_an_index_over_what_is_there_is_built_beside_writers",
    "test_a_search_waits_for_an_index_in_the_making_and_builds_it_itself",
    "test_a_collection_without_search_indexes_says_what_to_declare",
    "test_pages_by_a_graph",
    "test_diverse_pages_are_unlike_those_before",
    "test_a_cursor_is_short",
    "test_a_cursor_belongs_to_its_search",
    "test_a_cursor_belongs_to_its_collection",
    "test_an_embedder_may_return_nearly_the_same_vector",
    "test_a_forged_cursor_is_refused_or_shows_what_it_names",
    "test_each_group_gives_its_best_hit",
    "test_as_many_groups_as_exist_are_found_behind_a_large_one",
    "test_a_limit_may_be_above_all_that_exists",
    "test_a_vector_is_no_group",
    "test_fifty_of_a_hybrid_search_where_fifty_match",
    "test_scores_are_those_of_the_formula",
    "test_the_score_of_both_lists_counts",
}


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> str:
    return postgres18.url("postgresql", postgres18.new_database())


@pytest.fixture
def open_db(url: str) -> Iterator[Any]:
    databases = Databases(url)
    yield databases.open
    databases.close()


@pytest.fixture(autouse=True)
def asks_no_vector(request: pytest.FixtureRequest) -> None:
    callspec: Any = getattr(request.node, "callspec", None)
    if callspec is not None and "vector" in callspec.params.get("search", ()):
        pytest.skip("asks by a vector")


@pytest.fixture
def memory(db: Database) -> Collection:
    return db.collection("memory", indexes=[Ordered("entity"), Text("content", "title")])


@pytest.fixture
def turns(db: Database) -> Collection:
    indexes: list[IndexSpec] = [Ordered("session", "at"), Ordered("user"), Text("text")]
    return db.collection("turns", indexes=indexes, expires_at="expires")


@pytest.fixture
def notes(clock: FakeClock, db: Database) -> Collection:
    clock.now = (test_search_paging.DAY + timedelta(hours=test_search_paging.N)).timestamp()
    notes = db.collection("note", indexes=[Ordered("thread", "n"), Ordered("kind"), Text("text")])
    rng = random.Random(5)
    notes.put_many(test_search_paging.note(n, rng) for n in range(test_search_paging.N))
    return notes


modules = (test_search, test_search_paging, test_neighbors)
adopt(globals(), modules, {*OF_A_DIRECTORY, *BY_VECTOR})
