"""Functional relations: a source has at most one target of their type at any time.

The relations of one source and one functional type are a slot. What is told last counts, for the
time that it speaks of:

    known   Beijing  [----------------------------      lives_in Beijing, always
    told    Shanghai             [----------------      lives_in Shanghai, from here on
    then    Beijing  [-----------) Shanghai [-----      one commit

Invariants:
- No two relations of a slot are true at one time, and none is deleted: one whose time is taken
  ends, is split in two, or proves wrong.
- These functions read and change no database.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain

from amberdb import Document
from amberdb.graph.validity import ended, is_true_at, with_ends


def known_as(
    slot: Iterable[Document], target: str, valid_from: datetime | None, now: datetime
) -> Document | None:
    """The relation of the slot that says this already, at `valid_from` or now."""
    at = now if valid_from is None else valid_from
    for known in slot:
        is_over = valid_from is None and _had_ended_when_told(known)
        if known["target"] == target and is_true_at(known, at) and not is_over:
            return known
    return None


def placed(told: Document, slot: Sequence[Document], now: datetime) -> Document:
    """A new relation, with its place in the slot. Without valid_from it begins now, or if it is
    over, after those that ended before it; in an empty slot it was always true. Without valid_to it
    ends where the next one begins."""
    begin, end = told["valid_from"], told["valid_to"]
    if begin is not None:
        return told if end is not None else _bounded(told, slot)
    if not slot:
        return told
    if end is not None and end <= now:
        ends = [known["valid_to"] for known in slot if known["valid_to"] is not None]
        return {**told, "valid_from": max((each for each in ends if each < end), default=None)}
    # A relation that begins after now, and had begun when it was told, is of a clock that was set
    # back since: what is told now was told after it.
    told = {**told, "valid_from": now}
    if end is not None:
        return told
    return _bounded(told, [each for each in slot if not _had_begun_when_told(each)])


def make_room(
    slot: Iterable[Document], told: Document, now: datetime, told_by: str | None
) -> list[Document]:
    """The relations of the slot that change because `told` takes its time; those without an id are
    new."""
    changed: list[Document] = []
    for known in slot:
        if known.get("id") != told.get("id") and _overlap(known, told):
            changed += _cut(known, told["valid_from"], told["valid_to"], now, told_by)
    return changed


def settled(slot: Iterable[Document], now: datetime) -> list[Document]:
    """The relations of two slots that became one, in the order in which they were told."""
    settled: list[Document] = []
    for told in sorted(slot, key=lambda each: each["told_at"] or now):
        begin, end = told["told_at"] or now, told["valid_to"]
        if any(_overlap(known, told) for known in settled) and told["valid_from"] is None:
            told = {**told, "valid_from": begin if end is None or begin < end else None}
        parts = [
            _cut(known, told["valid_from"], end, now, None) if _overlap(known, told) else [known]
            for known in settled
        ]
        settled = [*chain.from_iterable(parts), told]
    return settled


def reopened(relation: Document, ends: Sequence[Document], slot: Iterable[Document]) -> Document:
    """The relation with these ends in place of its own. It ends where the next one of the slot
    begins, at the latest, and stays wrong where another one has its place."""
    others = [known for known in slot if known.get("id") != relation.get("id")]
    relation, begin = with_ends(relation, ends), relation["valid_from"]
    for known in others:
        if begin is not None and is_true_at(known, begin):
            return ended(relation, begin, known["told_at"], _teller(known))
    return _bounded(relation, others)


# -- inside ----------------------------------------------------------------------------------


def _bounded(relation: Document, slot: Iterable[Document]) -> Document:
    """The relation, with an end where the next relation of the slot begins, if it has no earlier
    one."""
    begin, end = relation["valid_from"], relation["valid_to"]
    later = [
        (known["valid_from"], known)
        for known in slot
        if known["valid_from"] is not None
        and (begin is None or known["valid_from"] > begin)
        and (end is None or known["valid_from"] < end)
    ]
    if not later:
        return relation
    end, following = min(later, key=lambda item: item[0])
    return ended(relation, end, following["told_at"], _teller(following))


def _cut(
    known: Document,
    begin: datetime | None,
    end: datetime | None,
    now: datetime,
    told_by: str | None,
) -> list[Document]:
    """The relation without the time from begin to end: what is before it, or that it was wrong, and
    what is after it."""
    over = begin
    if begin is None or (known["valid_from"] is not None and known["valid_from"] >= begin):
        over = known["valid_from"] or known["told_at"] or now
        known = {**known, "valid_from": over}
    assert over is not None
    parts = [ended(known, over, now, told_by)]
    if end is not None and (known["valid_to"] is None or known["valid_to"] > end):
        rest = {name: value for name, value in known.items() if name != "id"}
        parts.append({**rest, "valid_from": end, "told_at": now, "former_ends": []})
    return parts


def _teller(relation: Document) -> str | None:
    return next(iter(relation["told_by"]), None)


def _overlap(one: Document, other: Document) -> bool:
    """Whether a time is in both; a relation that is wrong has none."""
    begins = [each["valid_from"] for each in (one, other) if each["valid_from"] is not None]
    ends = [each["valid_to"] for each in (one, other) if each["valid_to"] is not None]
    return not begins or not ends or max(begins) < min(ends)


def _had_begun_when_told(relation: Document) -> bool:
    begin, told = relation["valid_from"], relation["told_at"]
    return begin is not None and told is not None and begin <= told


def _had_ended_when_told(relation: Document) -> bool:
    end, told = relation["valid_to"], relation["ended_at"]
    return end is not None and told is not None and end <= told
