"""Tests that are there for directories, each with its databases on a server: of the public API, and
of the systems. A file here takes over all tests and fixtures of one there.

A test that asks for what a directory alone has is in LEFT_OUT, with the reason; one that opens no
database is left out too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from amberdb import Database
from support import slices
from support.audited_server import audited_url
from support.databases import OpenDatabase
from support.on_server import Databases
from support.servers import PostgreSQL

_BESIDE = "test_nothing_that_happens_beside_a_snapshot_changes_it"
_BACKGROUND = "no thread embeds in the background: embed_missing() does"
_COUNTS = "it counts commits by Lsns, which a server gives to transactions"
_ENGINE = "it looks into the engine of a directory"
_FEED = "a version is no position in the feed: test_postgres_feed.py has the same promise"
_FILES = "files"
_LOG = "segments of the log"
_PATH = "it opens the path"
_WAITS = "a declaration waits for snapshots that have read the collection"
_WRITERS = "several transactions write at a time"
LEFT_OUT: Final[dict[str, str]] = {
    # Collections, Unique indexes, vectors:
    "test_memtable_knows_the_values_that_a_replay_finds": "memtables",
    "test_unique_over_duplicates_is_refused_and_gone_again": "the other indexes are built still",
    "test_value_of_an_expired_document_is_free": "the document is stored until it is reaped",
    "test_what_was_deferred_gets_its_vector_when_the_embedder_is_back": _BACKGROUND,
    "test_texts_that_cannot_be_embedded_hold_up_no_others": _BACKGROUND,
    "test_what_is_written_meanwhile_ends_no_pause_of_an_embedder_that_is_down": _BACKGROUND,
    "test_documents_from_before_the_declaration_get_their_vectors": _BACKGROUND,
    "test_an_embedder_that_is_down_is_asked_a_few_times": _BACKGROUND,
    "test_close_waits_for_the_call_of_an_embedder_but_not_for_ever": _BACKGROUND,
    # The feed:
    "test_changes_are_told_in_order_with_their_documents": _FEED,
    "test_only_what_is_behind_since_is_told": _FEED,
    "test_what_is_not_durable_is_not_told": "it is made durable, and told",
    "test_a_subscriber_may_begin_in_the_past": "Lsn 0 is before the outbox",
    "test_a_checkpoint_lets_the_log_go": _LOG,
    "test_a_subscriber_holds_the_log_back_until_it_acknowledges": _LOG,
    "test_the_slowest_subscriber_counts_until_it_is_removed": _LOG,
    "test_log_is_kept_for_a_subscriber_up_to_the_limit": _LOG,
    "test_changes_begin_at_the_oldest_record_though_a_checkpoint_recycles_it": _LOG,
    # Search:
    "test_a_change_of_something_else_keeps_the_row": "memtables",
    "test_a_closed_database_that_was_searched_has_no_file_open": _FILES,
    "test_many_checkpoints_leave_few_segments": _FILES,
    "test_segments_of_the_dead_are_written_again": _FILES,
    "test_a_cursor_goes_on_in_another_process": _PATH,
    "test_an_index_that_is_being_built_is_finished_first": "the declaration has built it",
    "test_a_search_waits_for_an_index_in_the_making_and_builds_it_itself": "as before",
    "test_the_state_of_the_cache_changes_no_answer": _FILES,
    "test_a_reader_sees_neighbors_too": "read_only",
    # Systems:
    "test_a_turn_of_a_clock_that_was_ahead_is_due": "the clock is the server's: no ClockWarning",
    "test_many_archival_memories_are_embedded_and_stored_in_batches": _COUNTS,
    "test_every_writing_method_joins_a_transaction_of_the_caller": _COUNTS,
    "test_a_session_takes_along_what_hangs_on_it_in_one_commit": _COUNTS,
    "test_a_user_takes_along_all_sessions": _COUNTS,
    "test_what_a_session_holds_does_not_meet_the_limit_of_a_transaction": "deletions are small",
    "test_events_are_stored_in_the_transaction_of_the_caller": _PATH,
    "test_a_new_target_ends_the_old_one_in_the_same_commit": _COUNTS,
    "test_relations_are_deleted_in_bounded_commits": _COUNTS,
    "test_an_entity_gets_another_name_with_its_relations": _COUNTS,
    "test_two_entities_become_one": _COUNTS,
    "test_a_source_and_an_alias_are_looked_up_in_an_index": _ENGINE,
    "test_forget_leaves_nothing_in_any_file": _FILES,
    "test_what_is_told_while_an_owner_is_forgotten_is_gone_whole[True]": _FILES,
    "test_memory_does_not_grow_with_the_documents": "a batch of a scan grows to 1,024 documents",
    # Expiry:
    "test_expire_removes_in_batches_and_says_so": _COUNTS,
    "test_nothing_is_removed_within_the_grace": _ENGINE,
    "test_clock_that_jumps_and_comes_back_within_the_grace_destroys_nothing": _ENGINE,
    "test_what_expires_within_the_grace_of_another_has_its_own_grace": _ENGINE,
    "test_document_put_just_when_the_background_is_done_is_removed_too": _ENGINE,
    "test_times_never_go_back": "the clock is the server's",
    "test_reaper_with_a_stop_does_no_more": _ENGINE,
    # Transactions:
    "test_an_exception_undoes_everything": _COUNTS,
    "test_a_transaction_that_wrote_nothing_commits_nothing": _COUNTS,
    "test_waiting_for_the_writer_has_a_timeout": _WRITERS,
    "test_timeout_of_one_transaction_is_its_own": _WRITERS,
    "test_sync_class_is_taken_per_call_and_per_database": "stats() of a server tell no durable Lsn",
    "test_finding_nothing_to_do_is_as_durable_as_doing_it": "as before",
    "test_commit_notes_the_rows_that_a_replay_finds": _ENGINE,
    "test_lock_takes_names_and_does_nothing_in_a_directory": _WRITERS,
    # Snapshots, and declarations beside them (test_postgres_snapshots.py has those of a server):
    f"{_BESIDE}[-memtable-index build]": _WAITS,
    f"{_BESIDE}[-memtable-index drop]": _WAITS,
    f"{_BESIDE}[checkpoint-memtable-index build]": _WAITS,
    f"{_BESIDE}[checkpoint-memtable-index drop]": _WAITS,
    "test_snapshot_sees_all_collections_at_its_lsn": _COUNTS,
    "test_closed_snapshot_lets_the_store_reuse_its_pages": "readers of LMDB",
    "test_many_threads_take_snapshots_while_the_background_watches_their_age": "90 connections",
    "test_a_search_in_a_snapshot_is_of_its_own_lsn": _PATH,
    "test_what_a_snapshot_searches_after_a_drop_is_kept_no_longer_than_itself": _ENGINE,
    # Names:
    "test_the_same_collection_under_another_name": _FILES,
    "test_it_is_gone_at_once_and_its_bytes_after_compact": _FILES,
    "test_its_space_is_given_back_in_bounded_batches": "the server drops its tables",
    "test_snapshots_keep_what_was_dropped": "SnapshotExpiredError",
    "test_repair_brings_no_dropped_collection_back": _FILES,
    "test_restores_before_and_after": "backups",
}
"""By the name of the test."""
_OF_FILES: Final = {"store", "checkpointed", "frozen", "replayed"}
"""Words in the ids of tests that are there for each place that documents have in a directory, the
first of which is the memtable: once is enough."""


_VALUES_MAX: Final = 8
_LONG: Final = {
    "test_a_large_conversation_is_deleted_in_batches",
    "test_one_target_at_a_time_and_every_answer_as_it_was[1]",
    *(f"test_walks_agree_with_networkx[{seed}]" for seed in range(1, 5)),
}
"""With HYPOTHESIS_PROFILE=whole alone, as two of three values of a test that has many."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    adopted = [item for item in items if item.path.is_relative_to(here)]
    kept = _slice([item for item in adopted if not _is_left_out(item)])
    left_out = [item for item in adopted if item not in kept]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    test, _, values = item.name.removesuffix("]").partition("[")
    is_named = item.name in LEFT_OUT or test in LEFT_OUT
    opens_none = "open_db" not in getattr(item, "fixturenames", ())
    return is_named or opens_none or not _OF_FILES.isdisjoint(values.split("-"))


def _slice(items: list[pytest.Item]) -> set[pytest.Item]:
    by_test: dict[str, list[pytest.Item]] = {}
    for item in items:
        if slices.IS_WHOLE or item.name not in _LONG:
            by_test.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return {
        item
        for values in by_test.values()
        for item in (slices.every(3, values) if len(values) > _VALUES_MAX else values)
    }


@pytest.fixture(scope="module")
def url(postgres18: PostgreSQL) -> Iterator[str]:
    with audited_url(postgres18, "vector") as url:
        yield url


@pytest.fixture
def open_db(url: str) -> Iterator[OpenDatabase]:
    databases = Databases(url)
    yield databases.open
    databases.close()


@pytest.fixture
def db(request: pytest.FixtureRequest, open_db: OpenDatabase) -> Database:
    """As that of directories."""
    if "clock" in request.fixturenames:
        return open_db(clock=request.getfixturevalue("clock"))
    return open_db()
