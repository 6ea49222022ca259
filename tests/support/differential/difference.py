"""A difference between the database and its model, and how values are compared."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np

from amberdb import DocumentError
from support.reference import Doc, same

UPGRADED = "upgraded"
"""The field that migrations write; no comparison looks at it."""


@final
class Difference(AssertionError):
    """The database answered otherwise than its model."""


def plain(document: Mapping[str, Any] | None) -> Doc | None:
    """A document with its vectors as lists, without what migrations wrote."""
    if document is None:
        return None
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in document.items()
        if name != UPGRADED
    }


def differ(what: object, got: Any, wanted: Any) -> None:
    """Raises Difference unless both are the same, in every type."""
    if not same(got, wanted):
        raise Difference(f"{what}: got {got!r}, wanted {wanted!r}")


def differ_in_documents(what: object, got: Iterable[Doc], wanted: Iterable[Doc]) -> None:
    """differ() of documents in any order; names those that are missing, strange or different."""
    left, right = _by_id(what, got), _by_id(what, wanted)
    missing = [right[id] for id in right.keys() - left.keys()]
    strange = [left[id] for id in left.keys() - right.keys()]
    changed = [(left[id], right[id]) for id in left.keys() & right if not same(left[id], right[id])]
    if missing or strange or changed:
        raise Difference(f"{what}: missing {missing}, strange {strange}, (got, wanted) {changed}")


def _by_id(what: object, documents: Iterable[Doc]) -> dict[str, Doc]:
    found: dict[str, Doc] = {}
    for document in documents:
        if document["id"] in found:
            raise Difference(f"{what}: {document['id']!r} twice")
        found[document["id"]] = plain(document) or {}
    return found


def outcome(call: Callable[[], Any]) -> Any:
    """The result of a call, or the name of the error that its document deserved."""
    try:
        return call()
    except DocumentError as error:
        return type(error).__name__
