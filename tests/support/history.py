"""A history of concurrent transactions and reads, and the judge of whether it may be.

Invariants:
- The judge knows nothing of the engine: a plain dict is replayed commit by commit, in the order
  of the Lsns, and everything that was read must be what the dict held at that Lsn.
- `invoked` and `returned` come from one counter, so they order what did not overlap: of two such
  operations the later has the greater Lsn (strict serializability), and no read goes back.
- A document whose `t` is not None has expired since it was written, and is never read.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from amberdb import Change, Document, Lsn

State = dict[tuple[str, str], Document]


class Violation(AssertionError):
    """What no serial order of the commits explains."""


@dataclass(frozen=True, slots=True)
class Get:
    collection: str
    id: str
    found: Document | None

    def answer(self, state: State) -> Document | None:
        return _living(state.get((self.collection, self.id)))


@dataclass(frozen=True, slots=True)
class Find:
    """What has low <= n < high, in the order of n, and v, which no two documents share."""

    collection: str
    low: int
    high: int
    found: list[Document]

    def answer(self, state: State) -> list[Document]:
        chosen = [
            document
            for (name, _), document in state.items()
            if name == self.collection
            and self.low <= document["n"] < self.high
            and _living(document) is not None
        ]
        return sorted(chosen, key=lambda document: (document["n"], document["v"]))


@dataclass(frozen=True, slots=True)
class Count:
    collection: str
    low: int
    high: int
    found: int

    def answer(self, state: State) -> int:
        return len(Find(self.collection, self.low, self.high, []).answer(state))


@dataclass(frozen=True, slots=True)
class Write:
    """None: deleted."""

    collection: str
    id: str
    document: Document | None


Read = Get | Find | Count
Kind = Literal["commit", "snapshot", "read"]


@dataclass(slots=True)
class Operation:
    """One transaction, one snapshot, or (of the kind "read", without an Lsn) one bare read."""

    kind: Kind
    invoked: int
    returned: int
    lsn: int | None
    steps: Sequence[Read | Write]

    @property
    def writes(self) -> bool:
        return any(isinstance(step, Write) for step in self.steps)


@dataclass
class History:
    """Threads append to it; it is judged when they are done."""

    operations: list[Operation] = field(default_factory=list[Operation])
    told: list[Change] = field(default_factory=list[Change])

    @property
    def reads(self) -> int:
        return sum(not isinstance(step, Write) for done in self.operations for step in done.steps)

    def judge(self, start: State | None = None, start_lsn: int = 0) -> State:
        """The last state. Raises Violation."""
        versions = _Versions(start or {}, start_lsn, self.operations)
        _judge_order(self.operations, versions)
        return versions.states[-1]

    def judge_feed(self) -> None:
        """The feed told every commit once, whole, in order, and else only what expired."""
        _judge_feed(self.told, [done for done in self.operations if done.writes])


class _Versions:
    """The state after each commit; making it judges what the commits themselves have read."""

    def __init__(self, start: State, start_lsn: int, operations: Iterable[Operation]) -> None:
        self.lsns = [start_lsn]
        self.states = [start]
        self.first_invoked = [0]
        """Of the commits up to each state, the invocation that came last: nobody saw it before."""
        commits = [done for done in operations if done.writes]
        for commit in sorted(commits, key=_lsn):
            if _lsn(commit) <= self.lsns[-1]:
                raise Violation(f"two commits at Lsn {commit.lsn}, or one before the start")
            state = dict(self.states[-1])
            for step in commit.steps:
                if isinstance(step, Write):
                    _apply(state, step)
                else:
                    _compare(step, state, commit)
            self.lsns.append(_lsn(commit))
            self.states.append(state)
            self.first_invoked.append(max(self.first_invoked[-1], commit.invoked))

    def place(self, lsn: int) -> int:
        """The version that holds at `lsn`."""
        low, high = 0, len(self.lsns)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.lsns[middle] <= lsn else (low, middle)
        return low


def _judge_order(operations: Sequence[Operation], versions: _Versions) -> None:
    """Sweeps by invocation; `floor` is the greatest Lsn of what had returned by then."""
    floor = 0
    running: list[tuple[int, int]] = []
    for done in sorted(operations, key=lambda operation: operation.invoked):
        while running and running[0][0] < done.invoked:
            floor = max(floor, heapq.heappop(running)[1])
        if done.kind == "read":
            lsn = _place_of_read(done, floor, versions)
        else:
            lsn = _lsn(done)
            if lsn < floor or (done.writes and lsn == floor):
                raise Violation(f"Lsn {floor} had returned before {done} was invoked")
        if not done.writes:
            at = versions.place(lsn)
            if versions.first_invoked[at] > done.returned:
                raise Violation(f"{done} saw a commit that was invoked later")
            for step in done.steps:
                _compare(step, versions.states[at], done)
        heapq.heappush(running, (done.returned, lsn))


def _place_of_read(done: Operation, floor: int, versions: _Versions) -> int:
    """The least Lsn that explains a bare read: the least harm to what comes later."""
    for at in range(versions.place(floor), len(versions.states)):
        if versions.first_invoked[at] > done.returned:
            break
        state = versions.states[at]
        if all(isinstance(step, Write) or step.found == step.answer(state) for step in done.steps):
            return max(floor, versions.lsns[at])
    raise Violation(f"no state since Lsn {floor} explains {done}")


def _judge_feed(told: Sequence[Change], commits: Sequence[Operation]) -> None:
    by_lsn: dict[int, dict[tuple[str, str], Document | None]] = defaultdict(dict)
    expiring: set[tuple[str, str]] = set()
    last = 0
    for change in told:
        if change.lsn < last:
            raise Violation(f"the feed went back from Lsn {last} to {change.lsn}")
        last = change.lsn
        key = (change.collection, change.id)
        if change.op == "expire":
            if key not in expiring:
                raise Violation(f"the feed let {key} expire at Lsn {last}, which is not due")
            continue
        if key in by_lsn[last]:
            raise Violation(f"the feed told {key} of Lsn {last} twice")
        by_lsn[last][key] = change.document
        if change.document is not None and _living(change.document) is None:
            expiring.add(key)
    expected: dict[int, dict[tuple[str, str], Document | None]] = {
        int(_lsn(done)): dict(_effects(done)) for done in commits
    }
    for lsn in sorted(expected.keys() | by_lsn.keys()):
        if expected.get(lsn) != by_lsn.get(lsn):
            raise Violation(f"Lsn {lsn} is {expected.get(lsn)}, the feed told {by_lsn.get(lsn)}")


def _effects(done: Operation) -> Iterator[tuple[tuple[str, str], Document | None]]:
    for step in done.steps:
        if isinstance(step, Write):
            yield (step.collection, step.id), step.document


def _apply(state: State, write: Write) -> None:
    if write.document is None:
        state.pop((write.collection, write.id), None)
    else:
        state[write.collection, write.id] = write.document


def _compare(step: Read | Write, state: State, done: Operation) -> None:
    if not isinstance(step, Write) and step.found != (expected := step.answer(state)):
        raise Violation(f"at Lsn {done.lsn} {step} should have been {expected}")


def _living(document: Document | None) -> Document | None:
    return None if document is None or document.get("t") is not None else document


def _lsn(done: Operation) -> Lsn:
    assert done.lsn is not None
    return Lsn(done.lsn)
