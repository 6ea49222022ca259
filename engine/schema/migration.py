"""Migration: upgrades of documents that were stored before their collection had a newer version.

    migrate={2: fn, 3: fn}: each function takes a document of the version before its own, and
    returns one of its own version

Invariants:
- The Lsn of a document's last write gives its version: a step was declared at an Lsn, and every
  document written after that is of the step's version or a later one.
- A read of an older document returns, byte for byte, the document that the migrator stores.
- A step changes neither the id nor the time of expiry, so existence and expiry of a document do
  not depend on the progress of a migration.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

from amberdb._errors import MigrationError
from amberdb._types import Document
from amberdb.engine.schema.definition import MigrationStep
from amberdb.engine.schema.document_format import version_of
from amberdb.engine.schema.documents import is_map

Upgrade: TypeAlias = Callable[[Document], Mapping[str, Any]]
"""Takes a document of one version, which it may change, and returns the document of the next one.
It has to be pure: it is called each time the document is read before it is stored."""

Upgrades: TypeAlias = Mapping[int, Upgrade]
"""Functions by the version that they lead to."""


@final
class Migration:
    """The steps of a collection that may hold older documents. Threads share it."""

    __slots__ = ("since", "steps", "upgrades")

    def __init__(self, steps: tuple[MigrationStep, ...], upgrades: Upgrades) -> None:
        self.steps = steps
        self.upgrades = upgrades
        """The functions that this process has been given; replaced as a whole."""
        self.since = steps[-1][1]
        """Documents written after this Lsn are of the newest version."""

    @property
    def newest_version(self) -> int:
        return self.steps[-1][0]

    @property
    def missing(self) -> list[int]:
        """The versions to which this process has no function."""
        return [version for version, _ in self.steps if version not in self.upgrades]

    def is_due(self, value: bytes) -> bool:
        """Whether a stored document is of an older version."""
        return version_of(value) < self.since

    def upgrade(self, name: str, document: Document, stored_version: int) -> Mapping[str, Any]:
        """The document after all steps that it has yet to take, by the Lsn of its last write.
        Raises MigrationError."""
        upgraded: Mapping[str, Any] = document
        id: str = document["id"]
        for version, lsn in self.steps:
            if stored_version < lsn:
                upgraded = self._take_step(name, id, version, dict(upgraded))
        return upgraded

    def _take_step(self, name: str, id: str, version: int, document: Document) -> Mapping[str, Any]:
        upgrade = self.upgrades.get(version)
        if upgrade is None:
            problem = f"is missing: declare db.collection({name!r}, version=..., migrate=...) first"
            raise failed(name, id, version, problem)
        try:
            upgraded = upgrade(document)
        except Exception as error:
            raise failed(name, id, version, f"failed: {error!r}") from error
        if not is_map(upgraded):
            raise failed(name, id, version, f"returned {upgraded!r:.80}, which is no map")
        return upgraded


def failed(name: str, id: str, version: int, problem: str) -> MigrationError:
    """The error of the function to a version, called with one document."""
    return MigrationError(
        f"collection {name!r}, document {id!r}: the function to version {version} {problem}",
        collection=name,
        key=id,
        version=version,
    )
