"""Provenance: which document, conversation or person told what an entity or a relation says.

    told_by      the ids of those who told it; None for a caller that named nobody
    provenance   for each id: {"told_by", "observations", "properties"}, what it told

Invariants:
- An observation has every one who told it, a property the last one who did.
- What only nobody told is in no record; what nobody and somebody told is in the record of None.
  So a graph without provenance stores none.
- Forgetting removes what no other has told, and no more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

from amberdb import Document


@final
@dataclass(frozen=True, slots=True)
class ForgottenSource:
    """How much was deleted because nobody else had told it."""

    entities: int
    observations: int
    relations: int


def told(
    document: Document,
    told_by: str | None,
    observations: Iterable[str],
    properties: Iterable[str],
    *,
    known: Sequence[str],
) -> Document:
    """The document with the provenance of what was told about it now; `known` are the observations
    that it had before."""
    records = _records(document)
    attributed = _attributed(document)
    before = set(known)
    for text in observations:
        if text in before and (text in attributed) == (told_by is None):
            _add(records, None, "observations", text)
        if told_by is not None:
            _add(records, told_by, "observations", text)
    for name in properties:
        for record in records.values():
            record["properties"] = [each for each in record["properties"] if each != name]
        if told_by is not None:
            _add(records, told_by, "properties", name)
    tellers = document["told_by"]
    return {
        **document,
        "told_by": tellers if told_by in tellers else [*tellers, told_by],
        "provenance": _needed(records),
    }


def without_observations(document: Document, removed: Iterable[str]) -> list[Document]:
    """The provenance of a document that loses these observations."""
    gone = set(removed)
    records = _records(document)
    for record in records.values():
        record["observations"] = [each for each in record["observations"] if each not in gone]
    return _needed(records)


def without(document: Document, told_by: str) -> tuple[Document, list[str]]:
    """The document as the others have told it, and the observations that it loses."""
    records = _records(document)
    record = records.pop(told_by, None) or _record(told_by)
    kept = {text for other in records.values() for text in other["observations"]}
    gone = [text for text in record["observations"] if text not in kept]
    properties = document["properties"]
    remaining = {**document, "provenance": _needed(records)}
    remaining["told_by"] = [each for each in document["told_by"] if each != told_by]
    remaining["properties"] = {
        name: value for name, value in properties.items() if name not in record["properties"]
    }
    return remaining, gone


def joined(one: Document, other: Document) -> Document:
    """told_by and provenance of two documents that became one, which has the properties of `one`
    where both have them."""
    records = _records(one)
    attributed = _attributed(one) | _attributed(other)
    for each in (one, other):
        unnamed = attributed - _attributed(each)
        for text in each.get("observations", ()):
            if text in unnamed:  # nobody told it here, and somebody there
                _add(records, None, "observations", text)
    for told_by, record in _records(other).items():
        for text in record["observations"]:
            _add(records, told_by, "observations", text)
        for name in record["properties"]:
            if name not in one["properties"]:
                _add(records, told_by, "properties", name)
    return {
        "told_by": list(dict.fromkeys((*one["told_by"], *other["told_by"]))),
        "provenance": _needed(records),
    }


def _attributed(document: Document) -> set[str]:
    """The observations that are in a record."""
    return {text for record in document["provenance"] for text in record["observations"]}


def _record(told_by: str | None) -> dict[str, Any]:
    return {"told_by": told_by, "observations": [], "properties": []}


def _records(document: Document) -> dict[str | None, dict[str, Any]]:
    """Copies of the records, by who told them."""
    return {each["told_by"]: {**_record(None), **each} for each in document["provenance"]}


def _add(
    records: dict[str | None, dict[str, Any]], told_by: str | None, of: str, name: str
) -> None:
    record = records.setdefault(told_by, _record(told_by))
    if name not in record[of]:
        record[of] = [*record[of], name]


def _needed(records: dict[str | None, dict[str, Any]]) -> list[Document]:
    """The records that say something; that of None only of observations that others told too."""
    others = {
        text
        for told_by, each in records.items()
        if told_by is not None
        for text in each["observations"]
    }
    unnamed = records.get(None)
    if unnamed is not None:
        unnamed["observations"] = [text for text in unnamed["observations"] if text in others]
    return [each for each in records.values() if each["observations"] or each["properties"]]
