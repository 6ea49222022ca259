"""Differences between two versions of a document, field by field.

Invariants:
- Maps are compared inside, everything else as a whole. Two values are the same when the engine says
  so (amberdb.equal): vectors by their numbers.
- There are at most DIFFERENCES_MAX.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, cast, final

import amberdb
from amberdb import Document
from amberdb.inspector.values import cell

DIFFERENCES_MAX: Final = 200
_CHARS_MAX: Final = 400


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: str
    """The value as one line of text; "" for one that was added."""
    after: str


def differences(before: Document, after: Document) -> list[Difference]:
    """The fields that differ, in the order of the newer document."""
    return list(islice(_walk("", before, after), DIFFERENCES_MAX))


def _walk(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name, value in after.items():
        path = f"{prefix}{name}"
        if name not in before:
            yield Difference(path, "added", "", cell(value, _CHARS_MAX))
            continue
        old = before[name]
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            yield from _walk(f"{path}.", cast(Document, old), cast(Document, value))
        elif not _are_equal(old, value):
            yield Difference(path, "changed", cell(old, _CHARS_MAX), cell(value, _CHARS_MAX))
    for name, old in before.items():
        if name not in after:
            yield Difference(f"{prefix}{name}", "removed", cell(old, _CHARS_MAX), "")


def _are_equal(one: Any, other: Any) -> bool:
    return amberdb.equal({"value": one}, {"value": other})
