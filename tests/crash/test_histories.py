"""Histories of concurrent threads are judged; and the judge refuses histories that may not be."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from amberdb import Change, Document, Lsn
from amberdb.engine.commit.change_feed import Op
from support import slices
from support.concurrent import Round
from support.history import Count, Find, Get, History, Kind, Operation, Read, Violation, Write


def doc(id: str, n: int, t: float | None = None) -> Document:
    return {"id": id, "n": n, "v": n, "t": t}


def put(id: str, n: int) -> Write:
    return Write("a", id, doc(id, n))


def got(id: str, n: int | None) -> Get:
    return Get("a", id, None if n is None else doc(id, n))


def operation(
    kind: Kind, when: tuple[int, int], lsn: int | None, *steps: Read | Write
) -> Operation:
    return Operation(kind, *when, lsn, steps)


START = operation("commit", (1, 2), 1, put("x", 1), put("y", 1))

GOOD = {
    "one after the other": [
        START,
        operation("commit", (3, 4), 2, got("x", 1), put("x", 2), got("x", 2)),
        operation("snapshot", (5, 6), 2, got("x", 2), Count("a", 0, 9, 2)),
        operation("read", (7, 8), None, Find("a", 0, 9, [doc("y", 1), doc("x", 2)])),
    ],
    "overlapping, in the other order": [
        START,
        operation("commit", (3, 9), 3, got("x", 2), put("x", 3)),
        operation("commit", (4, 8), 2, got("x", 1), put("x", 2)),
        operation("snapshot", (5, 6), 1, got("x", 1)),
        operation("read", (5, 7), None, got("x", 3)),
    ],
}

BAD = {
    "lost update": [
        START,
        operation("commit", (3, 6), 2, got("x", 1), put("x", 2)),
        operation("commit", (4, 7), 3, got("x", 1), put("x", 3)),
    ],
    "write skew": [
        START,
        operation("commit", (3, 6), 2, got("x", 1), got("y", 1), put("x", 2)),
        operation("commit", (4, 7), 3, got("x", 1), got("y", 1), put("y", 3)),
    ],
    "phantom": [
        START,
        operation("commit", (3, 6), 2, Count("a", 0, 9, 2), put("z", 2)),
        operation("commit", (4, 7), 3, Count("a", 0, 9, 2), put("w", 3)),
    ],
    "own write not read": [START, operation("commit", (3, 4), 2, put("x", 2), got("x", 1))],
    "dirty read": [START, operation("snapshot", (3, 4), 1, got("x", 2))],
    "read of what is not yet acknowledged, and then not": [
        START,
        operation("commit", (3, 9), 2, put("x", 2)),
        operation("read", (4, 5), None, got("x", 2)),
        operation("read", (6, 7), None, got("x", 1)),
    ],
    "torn snapshot": [
        START,
        operation("commit", (3, 4), 2, put("x", 2), put("y", 2)),
        operation("snapshot", (5, 6), 2, got("x", 2), got("y", 1)),
    ],
    "index behind its documents": [
        START,
        operation("commit", (3, 4), 2, put("x", 5)),
        operation("snapshot", (5, 6), 2, got("x", 5), Find("a", 4, 9, [])),
    ],
    "stale snapshot": [
        START,
        operation("commit", (3, 4), 2, put("x", 2)),
        operation("snapshot", (5, 6), 1, got("x", 1)),
    ],
    "stale read": [
        START,
        operation("commit", (3, 4), 2, put("x", 2)),
        operation("read", (5, 6), None, got("x", 1)),
    ],
    "snapshots go back": [
        START,
        operation("commit", (3, 9), 2, put("x", 2)),
        operation("snapshot", (4, 5), 2, got("x", 2)),
        operation("snapshot", (6, 7), 1, got("x", 1)),
    ],
    "read of what comes later": [
        START,
        operation("snapshot", (3, 4), 2, got("x", 2)),
        operation("commit", (5, 6), 2, put("x", 2)),
    ],
    "acknowledged in another order": [
        START,
        operation("commit", (3, 4), 3, put("x", 3)),
        operation("commit", (5, 6), 2, put("y", 2)),
    ],
    "one Lsn twice": [START, operation("commit", (3, 4), 1, put("x", 3))],
    "the expired is found": [
        START,
        operation("commit", (3, 4), 2, Write("a", "x", doc("x", 2, t=1.0))),
        operation("read", (5, 6), None, Count("a", 0, 9, 2)),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_the_judge_passes_what_a_serial_order_explains(name: str) -> None:
    History(GOOD[name]).judge()


@pytest.mark.parametrize("name", BAD)
def test_the_judge_refuses(name: str) -> None:
    with pytest.raises(Violation):
        History(BAD[name]).judge()


def told(lsn: int, id: str, document: Document | None) -> Change:
    op: Op = "delete" if document is None else "put"
    return Change(Lsn(lsn), datetime.now(UTC), "a", op, id, document)


FEED = [told(1, "x", doc("x", 1)), told(1, "y", doc("y", 1)), told(2, "x", None)]


@pytest.mark.parametrize(
    "feed",
    [FEED[1:], FEED[:2], [FEED[2], *FEED[:2]], [*FEED, FEED[2]], [*FEED, told(3, "x", None)]],
    ids=["half a commit", "gap at the end", "out of order", "twice", "never committed"],
)
def test_the_judge_refuses_a_feed(feed: list[Change]) -> None:
    commits = [START, operation("commit", (3, 4), 2, Write("a", "x", None))]
    History(commits, FEED).judge_feed()
    with pytest.raises(Violation):
        History(commits, feed).judge_feed()


@pytest.mark.slow
@pytest.mark.parametrize("seed", slices.parameters(3, range(8)))
def test_a_history_of_threads_is_strictly_serializable(tmp_path: Path, seed: int) -> None:
    done = Round(str(tmp_path / "t.amber"), seed)
    done.run()
    assert sum(operation.writes for operation in done.history.operations) >= 120
    assert {name.partition(".")[0] for name in done.yields.reached} >= {"commit", "checkpoint"}
    assert done.yields.at_places, "at some of them threads gave way"
    assert done.yields.at_reads
