"""The choice among the plans of a query: by the work of reading their entries, or by a race.

    everything is asked for   the plan with the least work
    one page is asked for     a plan with little work at once; else the plans in the order of the
                              query are read, and the entries of the others are counted as far as
                              that has got: one that has no more work left is read instead, whole,
                              and sorted

Invariants:
- The answer is the same whichever plan is read: a page, its order and its cursor are those of the
  first plan, or without an order those of the plan that has filled the page.
- Counting ends where the plan that is chosen ends, or at what has been read by then. It reads keys
  alone, which is a tenth of the work of reading their documents, or less.
- Beside a plan that is counted no other one is read for longer than that one takes, so a race
  costs at most about twice what its best plan costs alone.
"""

from collections.abc import Iterator, Sequence
from heapq import nlargest, nsmallest
from itertools import islice
from sys import maxsize
from typing import Final, final

from amberdb.engine.query.planner import Plan
from amberdb.engine.query.scan import Found, documents, passing, place_in, scanned
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.index_scan import Counter
from amberdb.engine.storage.source import Place, Source

FEW: Final = 64
"""Work that is done before plans are compared; and a plan with no more is chosen at once."""
_WIDER: Final = 4
_TRIAL: Final = 8
"""Entries of each of several plans in the order of the query that are read before one of them is
preferred."""


def narrowest(source: Source, plans: Sequence[Plan], entries_max: int | None = None) -> Plan:
    """The plan with the least work; the first one when all have more than `entries_max`."""
    if len(plans) == 1:
        return plans[0]
    counted = _Counted(source, plans)
    upto = FEW
    while True:
        plan = counted.least(upto)
        if plan is not None:
            return plan
        if entries_max is not None and upto >= entries_max * _weight(plans[0]):
            return plans[0]
        upto *= _WIDER


def at_once(source: Source, plans: Sequence[Plan]) -> Plan | None:
    """The plan that is chosen before any document is read, if there is one."""
    return _Counted(source, plans).least(FEW)


def _weight(plan: Plan) -> int:
    """The work of one entry: those of an index lead to documents in no order, each by a get."""
    return 1 if plan.index is None else 2


@final
class _Counted:
    """The work of plans, counted as far as it is asked for."""

    def __init__(self, source: Source, plans: Sequence[Plan]) -> None:
        self._counters = [(plan, Counter(source, plan.ranges), _weight(plan)) for plan in plans]

    def least(self, upto: int) -> Plan | None:
        """The plan with the least work; None when all have more than `upto`."""
        best: Plan | None = None
        for plan, counter, weight in self._counters:
            if counter.is_within(upto // weight) and (
                best is None or counter.total * weight < upto
            ):
                best, upto = plan, counter.total * weight
        return best


def race(
    source: Source, schema: Schema, plans: Sequence[Plan], limit: int | None, after: Place | None
) -> tuple[Plan, list[Found]]:
    """A page of at most `limit` documents (None: all), and the plan that its places are of: by
    whichever plan has it first. The first plan is in the order of the query; after a place, which
    is of the first plan, the page is in the order of that one."""
    first = plans[0]
    scans = [
        _Scan(source, schema, plan, limit, after)
        for plan in plans
        if plan is first or (plan.is_sorted and after is None)
    ]
    counted = _Counted(source, plans)
    upto = FEW
    while True:
        least = counted.least(upto)
        if least is not None and all(scan.plan is not least for scan in scans):
            return first, sorted_as(first, source, schema, least, limit, after)
        if least is not None:
            scans = [scan for scan in scans if scan.plan is least]
        elif len(scans) > 1:
            for scan in scans:
                if scan.advance(_TRIAL):
                    return scan.plan, scan.found
            scans.sort(key=_yield_of, reverse=True)
        share = upto
        for scan in scans:
            if scan.advance(share // _weight(scan.plan)):
                return scan.plan, scan.found
            share = upto // _WIDER
        upto *= 2


def _yield_of(scan: "_Scan") -> float:
    """Documents found by entries read."""
    return len(scan.found) / max(1, scan.read)


@final
class _Scan:
    """A page from a plan in the order of the query, read step by step."""

    def __init__(
        self, source: Source, schema: Schema, plan: Plan, limit: int | None, after: Place | None
    ) -> None:
        self.plan = plan
        self.found: list[Found] = []
        self._source = source
        self._schema = schema
        self._limit = maxsize if limit is None else limit
        self._scanned = scanned(source, plan, after)
        self.read = 0

    def advance(self, upto: int) -> bool:
        """Reads on until `upto` entries have been read; returns whether the page is complete."""
        while self.read < upto and len(self.found) < self._limit:
            block = list(islice(self._scanned, min(upto - self.read, FEW)))
            if not block:
                return True
            self.read += len(block)
            matches = passing(self._source, self._schema, self.plan, block)
            self.found += islice(matches, self._limit - len(self.found))
        return len(self.found) == self._limit


def sorted_as(
    first: Plan,
    source: Source,
    schema: Schema,
    plan: Plan,
    limit: int | None = None,
    after: Place | None = None,
) -> list[Found]:
    """The page that a scan of the first plan gives, from all documents that another one finds."""

    start = None if after is None else first.rank(after)

    def placed() -> Iterator[Found]:
        for _, value, document in documents(source, schema, plan):
            place = place_in(first, schema, document, value)
            if place is None:
                continue
            if start is not None:
                rank = first.rank(place)
                if rank >= start if first.reverse else rank <= start:
                    continue
            yield place, value, document

    def rank_of(found: Found) -> bytes:
        return first.rank(found[0])

    if limit is None:
        return sorted(placed(), key=rank_of, reverse=first.reverse)
    return (nlargest if first.reverse else nsmallest)(limit, placed(), key=rank_of)
