"""Functions that upgrade drawn documents, and migrations that stop half-way.

Invariants:
- A function keeps apart what a Unique index over "u" keeps apart.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from unittest.mock import patch

from amberdb import _failpoints as failpoints
from amberdb.engine.maintenance import migrator
from support.reference import Doc


def upgrade_to(version: int) -> Callable[[Doc], Doc]:
    """One of four: fields change places, values, types."""

    def upgrade(doc: Doc) -> Doc:
        kind = version % 4
        if kind == 0:
            return {**doc, "a": doc.get("s"), "s": doc.get("a")}
        if kind == 1:
            return {**doc, "u": 12 - doc["u"]} if type(doc.get("u")) is int else doc
        if kind == 2:
            tags = doc.get("tags")
            return {**doc, "tags": tags[::-1] if type(tags) is list else [tags]}
        doc["m"] = {"x": doc.get("a"), "y": doc.pop("tags", None)}
        return doc

    return upgrade


def upgrades(versions: Iterable[int]) -> dict[int, Callable[[Doc], Doc]]:
    """By version."""
    return {version: upgrade_to(version) for version in versions}


class _Stopped(BaseException):
    """Out of the middle of a migration."""


@contextmanager
def stopped_after(batches: int) -> Generator[None]:
    """Migrations inside end after so many batches of two documents, as if the process died; 0 is
    after all of them."""
    left = [batches]

    def reach(place: str) -> None:
        if place == "migration.committed":
            left[0] -= 1
            if not left[0]:
                raise _Stopped

    failpoints.install(reach if batches else None)
    try:
        with patch.object(migrator, "CHUNK", 2):
            yield
    except _Stopped:
        pass
    finally:
        failpoints.install(None)
