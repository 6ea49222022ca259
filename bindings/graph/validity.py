"""The two times of a relation: when it was true, and when the graph was told.

    valid_from, valid_to   true at every t with valid_from <= t < valid_to
    told_at, ended_at      told at told_at; its end, valid_to, at ended_at
    former_ends            ends that another one replaced: valid_to, ended_at, ended_by

Invariants:
- Without valid_from it was always true, without valid_to it still is.
- A read `known_at` a time answers as it would have then: without the relations and the ends that
  were told later.
- A relation that was told and proved wrong is true at no time: its valid_to is its valid_from.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

from amberdb import Document, InvalidDocumentError, QueryError
from amberdb._shared.checks import check_optional_time

AsOf: TypeAlias = datetime | Literal["now", "ever"]
"""Relations that were true at a time, that are true now, or all of them ("ever")."""


def valid(as_of: datetime | Literal["ever"], known_at: datetime | None) -> dict[str, Any]:
    """A filter for relations that were true at a time. With `known_at` it lets more pass: those of
    which as_known() is not true then. Raises QueryError."""
    conditions: list[dict[str, Any]] = []
    if as_of != "ever":
        _check_moment('as_of must be "now", "ever" or', as_of)
        has_not_ended: list[dict[str, Any]] = [{"valid_to": None}, {"valid_to": {"$gt": as_of}}]
        if known_at is not None:
            has_not_ended.append({"ended_at": {"$gt": known_at}})
        has_begun = [{"valid_from": None}, {"valid_from": {"$lte": as_of}}]
        conditions += [{"$or": has_begun}, {"$or": has_not_ended}]
    if known_at is not None:
        _check_moment("known_at must be None or", known_at)
        conditions.append({"$or": [{"told_at": None}, {"told_at": {"$lte": known_at}}]})
    return {"$and": conditions} if conditions else {}


def as_known(
    relations: Iterable[Document], as_of: datetime | Literal["ever"], known_at: datetime | None
) -> Iterator[Document]:
    """The relations of the filter as they were known, without the ends that were told later."""
    for relation in relations:
        if known_at is not None:
            ends = ends_of(relation)
            while ends and ends[-1]["ended_at"] is not None and ends[-1]["ended_at"] > known_at:
                del ends[-1]
            relation = with_ends(relation, ends)
        if as_of == "ever" or is_true_at(relation, as_of):
            yield relation


def is_true_at(relation: Document, at: datetime) -> bool:
    begin, end = relation["valid_from"], relation["valid_to"]
    return (begin is None or begin <= at) and (end is None or at < end)


def ended(
    relation: Document, valid_to: datetime, ended_at: datetime | None, ended_by: str | None
) -> Document:
    """The relation with an end, which replaces the one that it had."""
    end = {"valid_to": valid_to, "ended_at": ended_at, "ended_by": ended_by}
    return with_ends(relation, [*ends_of(relation), end])


def ends_of(relation: Document) -> list[Document]:
    """The ends that were told, the last one last."""
    last = {name: relation[name] for name in ("valid_to", "ended_at", "ended_by")}
    return [*relation["former_ends"], *([] if last["valid_to"] is None else [last])]


def with_ends(relation: Document, ends: Sequence[Document]) -> Document:
    """The relation with these ends, the last of which counts."""
    if not ends:
        open_ = {"valid_to": None, "ended_at": None, "ended_by": None}
        return {**relation, **open_, "former_ends": []}
    return {**relation, **ends[-1], "former_ends": list(ends[:-1])}


def is_wrong(relation: Document) -> bool:
    """Whether it proved wrong, so it was true at no time."""
    return relation["valid_to"] is not None and relation["valid_to"] == relation["valid_from"]


def check_span(valid_from: datetime | None, valid_to: datetime | None) -> None:
    """Raises InvalidDocumentError unless they are times, and valid_to is after valid_from."""
    check_optional_time("valid_from", valid_from)
    check_optional_time("valid_to", valid_to)
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise InvalidDocumentError(
            f"a relation that is valid from {valid_from} cannot end at {valid_to}: give a later "
            "valid_to",
            field="valid_to",
        )


def _check_moment(problem: str, value: object) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise QueryError(f"{problem} an aware datetime, not {value!r}")
