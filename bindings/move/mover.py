"""move(): the steps of a move.

    the place of an earlier run, or the beginning: a subscriber of the source
    copy      the collections, without their indexes
    follow    the changes since the beginning
    declare   the indexes, built over what is there
    follow    until one turn takes less than LAG_S
    compare   if wanted, and what differs once more after another turn

Invariants:
- The source is only read, but for its subscriber; writers of it go on.
- A run that ends early, in any way, is gone on with by the next one.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Final, final

import amberdb
from amberdb import Database, Lsn
from amberdb._connect import connect_or_open, is_url
from amberdb.move.comparing import Comparing, Difference
from amberdb.move.copying import Copying, Counted, moved
from amberdb.move.declaring import declare
from amberdb.move.errors import MoveTargetError
from amberdb.move.following import Following
from amberdb.move.place import Place

BATCH: Final = 1000
LAG_S: Final = 1.0
_TURNS_MAX: Final = 20
"""Comparisons of what differed, while the source is written."""
_WAIT_S: Final = 0.5
_CHECKPOINT_BYTES: Final = 2 << 20
"""Of a target that is a directory: a larger memtable takes more memory, and saves no time."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MoveReport:
    """What one run of a move has done."""

    source: str
    target: str
    collections: int
    """In the source."""
    documents: int
    """Copied, and read back."""
    changes: int
    """Of the source, made in the target."""
    lsn: Lsn
    """The last change of the source that the target has."""
    lag_s: float
    """How long the last turn has taken: the target is behind the source by no more."""
    compared: int = 0
    """Documents, with `verify`."""
    digests: dict[str, str] = field(default_factory=dict[str, str])
    """By collection that of all documents, with `verify`: equal on both sides when `differences` is
    empty."""
    differences: list[Difference] = field(default_factory=list[Difference])
    """With `verify`; empty when the target is equal to the source."""
    is_finished: bool = False


def move(
    source: Database | str,
    target: Database | str,
    *,
    verify: bool = False,
    finish: bool = False,
    until: Callable[[], bool] | None = None,
    batch: int = BATCH,
    progress: Counted | None = None,
) -> MoveReport:
    """Copies a database to another place, and follows its changes: a directory or a PostgreSQL
    server, from either to either.

        report = move("memory.amber", "postgresql://...", verify=True)

    source, target  an open database, a path, or the URL of a server. A path of the source is opened
                    to be shared, beside processes that share it; the target is new, or of an
                    earlier run
    verify          compares all documents and declarations at the end
    finish          ends the move: the source holds no changes any more. Do it when the programs
                    write to the target. Not done when something differs
    until           goes on following, and asks every half second whether to end
    batch           documents that are copied at once

    Programs may write to the source meanwhile. To cut over: stop them, run it once more with
    `verify` and `finish`, and start them with the target. A run that was interrupted or killed is
    gone on with by the next one.

    Raises MoveTargetError, MoveSourceError, MoveDamagedError, and what the two databases raise.
    """
    if batch < 1:
        raise ValueError(f"batch={batch!r}: give a number above 0")
    with ExitStack() as opened:
        from_db = opened.enter_context(_source(source))
        to_db = opened.enter_context(target_of(target))
        if from_db.path == to_db.path:
            raise MoveTargetError(f"{to_db.path} is source and target: give two databases")
        return _moved(from_db, to_db, verify, finish, until, batch, progress)


def _moved(
    source: Database,
    target: Database,
    verify: bool,
    finish: bool,
    until: Callable[[], bool] | None,
    batch: int,
    progress: Counted | None,
) -> MoveReport:
    place = Place(source, target)
    copying = Copying(source, target, place, batch, progress)
    following = Following(source, target, place, progress)
    following.catch_up()
    while copying.run():  # a collection may have been created or renamed meanwhile
        following.catch_up()
    for name in moved(source):
        declare(target, source.definition(name), with_late=True)
    target.build_indexes()
    lag_s = _caught_up(following)
    while until is not None and not until():
        following.wait(_WAIT_S)
        lag_s = _caught_up(following)
    comparing = Comparing(source, target, batch, progress)
    differences = _differences(comparing, following) if verify else []
    if finish and not differences:
        place.end()
    return MoveReport(
        source=source.path,
        target=target.path,
        collections=len(moved(source)),
        documents=copying.documents,
        changes=following.changes,
        lsn=place.lsn,
        lag_s=lag_s,
        compared=comparing.documents,
        digests=comparing.digests,
        differences=differences,
        is_finished=finish and not differences,
    )


def _caught_up(following: Following) -> float:
    """Follows until a turn is short; the seconds that it took."""
    while True:
        began = time.monotonic()
        following.catch_up()
        lag_s = time.monotonic() - began
        if lag_s < LAG_S:
            return lag_s


def _differences(comparing: Comparing, following: Following) -> list[Difference]:
    """What differs, and is not just being written."""
    found = comparing.run()
    for _ in range(_TURNS_MAX):
        if not found:
            break
        following.catch_up()
        found = comparing.still(found)
    return found


def _source(given: Database | str) -> AbstractContextManager[Database]:
    if isinstance(given, Database):
        return nullcontext(given)
    return connect_or_open(given, create=False)


def target_of(given: Database | str) -> AbstractContextManager[Database]:
    if isinstance(given, Database):
        return nullcontext(given)
    if is_url(given):
        return connect_or_open(given)
    return amberdb.open(
        given, checkpoint_bytes=_CHECKPOINT_BYTES, memtable_bytes_max=8 * _CHECKPOINT_BYTES
    )
