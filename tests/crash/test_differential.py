"""Seeds of the differential fuzzer pass, and what it must find it finds: each planted fault breaks
one promise, as a mistake in the engine would. The campaign is differential.py."""

# The faults reach into the product on purpose.
# pyright: reportPrivateUsage=false

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest

from amberdb import Collection
from amberdb.engine.backup import restore
from amberdb.engine.commit import unique_check
from amberdb.engine.commit.clock import Clock
from amberdb.engine.commit.follower import Follower
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.transaction import Snapshot, SnapshotCollection
from amberdb.engine.maintenance.compaction import Compactor
from amberdb.engine.schema.codec import decode_effects, encode
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.schema import Schema
from amberdb.wal import Log
from support import slices
from support.bugs import Bug
from support.differential.difference import Difference
from support.differential.run import Run

SECONDS: Final = slices.size(4, 1)
FOUND_S: Final = 30.0
"""At most: a run ends with what it finds."""


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("seed", slices.every(4, range(1, 9)))
def test_threads_declarations_and_kills_agree_with_the_model(image: Path, seed: int) -> None:
    image.mkdir()
    run = Run(image, seed, SECONDS)
    run.run(("threads", "killed"))
    assert run.operations.total() > 20


# -- planted faults ------------------------------------------------------------------------------


def drop_index_entries() -> Any:
    add, number = Schema.add_entries, count()

    def some(self: Schema, *arguments: Any) -> None:
        if next(number) % 20 != 19:
            add(self, *arguments)

    return patch.object(Schema, "add_entries", some)


def lose_a_write() -> Any:
    finish, number = WriteBatch.finish, count()

    def forgetful(self: WriteBatch) -> Effects:
        effects = finish(self)
        return {} if next(number) % 40 == 39 else effects

    return patch.object(WriteBatch, "finish", forgetful)


def let_duplicates_in() -> Any:
    def nobody(*_: object) -> None: ...

    return patch.object(unique_check, "_owner", nobody)


def show_what_has_expired() -> Any:
    now_us = Clock.now_us

    def late(self: Clock) -> int:
        return now_us(self) - 10_000_000

    return patch.object(Clock, "now_us", late)


@contextmanager
def search_a_snapshot_as_of_now() -> Generator[None]:
    take = Snapshot.__init__
    handles: dict[Snapshot, Handle] = {}

    def taken(self: Snapshot, handle: Handle, max_age_ms: int) -> None:
        take(self, handle, max_age_ms)
        handles[self] = handle

    def search(self: SnapshotCollection, *args: Any, **more: Any) -> Any:
        return Collection(self.name, handles[self._snapshot]).search(*args, **more)

    with (
        patch.object(Snapshot, "__init__", taken),
        patch.object(SnapshotCollection, "search", search),
    ):
        yield


def restore_without_deletes() -> Any:
    def kept(data: bytes) -> Effects:
        return {key: value for key, value in decode_effects(data).items() if value is not None}

    return patch.object(restore, "decode_effects", kept)


def erase_without_compaction() -> Any:
    def run(*_: object, **__: object) -> None: ...

    return patch.object(Compactor, "run", run)


def read_what_was_new_at_first() -> Any:
    def is_due(self: Follower) -> bool:
        return False

    return patch.object(Follower, "_is_due", is_due)


def log_nothing_of_some_commits() -> Any:
    """They are only in memory, and the process dies."""
    append, number = Log.append, count()

    def lazy(self: Log, payload: bytes, *more: Any, **named: Any) -> Any:
        return append(self, _NO_EFFECTS if next(number) % 5 == 4 else payload, *more, **named)

    return patch.object(Log, "append", lazy)


_NO_EFFECTS: Final = encode({})
_THREADS: Final = ("threads",)
FAULTS: Final[dict[Bug, Sequence[str]]] = {
    # fault: phases. How one shows is chance: to a thread, a reader, a restore, or after a kill.
    drop_index_entries: _THREADS,
    lose_a_write: _THREADS,
    let_duplicates_in: _THREADS,
    show_what_has_expired: _THREADS,
    search_a_snapshot_as_of_now: _THREADS,
    restore_without_deletes: _THREADS,
    erase_without_compaction: _THREADS,
    read_what_was_new_at_first: _THREADS,
    log_nothing_of_some_commits: ("killed",) * 6,
}


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("fault", slices.parameters(2, FAULTS), ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(image: Path, fault: Bug) -> None:
    image.mkdir()
    with fault(), pytest.raises(Difference):
        Run(image, 1, FOUND_S).run(FAULTS[fault])
