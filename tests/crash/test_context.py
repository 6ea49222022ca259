"""Agent context, crashed after every file operation: a message that was acknowledged is in the
queue or in recall storage, never in both, its summary beside it; and what is deleted is gone as a
whole, though its documents are removed in several commits."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Database, Document, MissingKeyError
from amberdb.context import AgentContext
from amberdb.context.types import DEPENDENT, SESSIONS, USERS
from crash.test_backup import crashed, recorded
from support import slices
from support.databases import SMALL, FakeClock, assert_sound
from support.recorder import RecordingFileSystem
from support.trace import Note, Trace

SAID = 10
WORD = [{"role": "user", "content": "word"}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With a database that has a user."""
    found = tmp_path / "root"
    found.mkdir()
    db, context = opened(found)
    with db:
        context.sessions.create_user("lin", user_id="lin")
        context.sessions.create_user("wang", user_id="wang")
    return found


def opened(root: Path, **options: Any) -> tuple[Database, AgentContext]:
    db = amberdb.open(root / "t.amber", **SMALL, **options)
    clock = FakeClock()
    context = AgentContext(
        db, token_budget=6, keep=0.5, count_tokens=lambda text: 1, summarize=count, clock=clock
    )
    vars(context.sessions)["_batch"] = 5
    return db, context


def count(summary: str, messages: Sequence[Document]) -> str:
    """How many messages it was told of, ever."""
    return str(int(summary or 0) + len(messages))


def images_after(
    trace: Trace, image: Path, begin: bytes, step: int = 1
) -> Iterator[tuple[str, bytes]]:
    """Images behind the note `begin`: where they are from, and the last note before."""
    notes = [b""]
    for op in trace.ops:
        is_end = isinstance(op, Note) and op.data != b"done"
        notes.append(op.data if isinstance(op, Note) and is_end else notes[-1])
    first = notes.index(begin)
    for at, mode in crashed(trace, image, step):
        if at >= first:
            yield f"operation {at}, {mode}", notes[at + 1]


@pytest.mark.slow
@pytest.mark.sliced
def test_an_overflow_loses_nothing_at_any_step(root: Path, image: Path) -> None:
    def work(fs: RecordingFileSystem) -> None:
        db, context = opened(root, fs=fs)
        with db:
            context.sessions.create("lin", "helper", session_id="s")
            for number in range(SAID):
                fs.note(str(number).encode())
                context.append("s", "user", f"message {number}")
                if number == 8:
                    db.checkpoint()
            fs.note(str(SAID).encode())

    moves: set[int] = set()
    said = 0
    for place, acknowledged in images_after(recorded(root, work), image, b"0", 5):
        db, context = opened(image)
        with db:
            recall = context.external.recall("s", limit=None)[::-1]
            queue = context.queue("s", limit=None)
            found = [each["content"] for each in (*recall, *queue)]
            assert found == [f"message {number}" for number in range(len(found))], place
            assert int(acknowledged) <= len(found) <= int(acknowledged) + 1, place
            assert int(context.part("s", "summary") or 0) == len(recall), place
            state = context.sessions.get("s")
            assert (state["first_position"], state["queue_tokens"]) == (len(recall), len(queue))
            context.overflow("s")
            assert len(context.queue("s")) < 6, place
            assert_sound(db)
            moves.add(len(recall))
            said = max(said, len(found))
    assert said == SAID
    assert len(moves) >= 3, moves


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("batch", [5, 100], ids=["in several commits", "in one"])
def test_a_deletion_is_of_all_or_nothing_at_any_step(root: Path, image: Path, batch: int) -> None:
    made = ["lin1", "lin2", "wang1", "wang2"]

    def work(fs: RecordingFileSystem) -> None:
        db, context = opened(root, fs=fs)
        with db:
            vars(context.sessions)["_batch"] = batch
            for session in made:
                context.sessions.create(session[:-1], "helper", session_id=session)
                context.extend(session, WORD * 5)
                context.external.archival_insert(session, "put by")
            fs.note(b"made")
            context.sessions.delete_user("lin")
            fs.note(b"gone")
            context.sessions.create_user("lin")
            context.sessions.delete("wang1")
            fs.note(b"all gone")

    seen = {"whole": 0, "marked": 0, "gone": 0}
    images = images_after(recorded(root, work), image, b"made")
    for place, acknowledged in islice(images, 0, None, slices.size(1, 5)):
        db, context = opened(image)
        with db:
            there = [session for session in made if is_there(context, session)]
            expected = {b"made": (4, 2), b"gone": (2, 1), b"all gone": (1,)}[acknowledged]
            assert len(there) in expected, place
            assert there == made[-len(there) :], place
            users = [each["id"] for each in context.sessions.users()]
            assert ("lin" in users) == (len(there) == 4), place
            is_marked = len(db.collection(SESSIONS)) > len(there)
            seen["whole" if len(there) == 4 else "marked" if is_marked else "gone"] += 1
            context.sessions.purge()
            assert set(db.collection(SESSIONS)) == set(there), place
            for name in DEPENDENT:
                owners = {each["session_id"] for each in db.collection(name).documents()}
                assert owners <= set(there), place
            assert all("deleted_at" not in each for each in db.collection(USERS).documents())
            assert [each for each in made if is_there(context, each)] == there, place
            assert_sound(db)
    assert seen["gone"] > 3, seen
    if slices.IS_WHOLE:  # the others last for a few operations
        assert seen["whole"] > 3, seen
        assert (seen["marked"] > 3) == (batch == 5), seen


def is_there(context: AgentContext, session: str) -> bool:
    """With all that it was given."""
    try:
        state = context.sessions.get(session)
    except MissingKeyError:
        return False
    assert len(context.queue(session)) == state["next_position"] == 5
    assert len(context.external.archival(session)) == 1
    return True
