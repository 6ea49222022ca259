"""Migration: what a document becomes that was stored before its collection had a newer version.

    migrate={2: fn, 3: fn}: each takes a document of the version below and gives one of its own

Invariants:
- Which version a document has follows from the Lsn of its last write: a step was declared at an
  Lsn, and whatever was written behind that is of its version or a later one.
- What a read shows of an older document is, byte for byte, what the migrator stores of it.
- A step changes neither the id nor the time of expiry, so who is there and who has expired does
  not depend on how far a migration has come.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from amberdb._errors import DocumentError, MigrationError
from amberdb._types import Document
from amberdb.engine.schema.definition import MigrationStep
from amberdb.engine.schema.document_format import StoredDocument, version_of
from amberdb.engine.schema.documents import is_map

if TYPE_CHECKING:
    from amberdb.engine.schema.schema import Prepared, Schema

Upgrade: TypeAlias = Callable[[Document], Mapping[str, Any]]
"""Of a document of one version, which it may change, the document of the next one. It has to be
pure: it is called as often as the document is read before it is stored."""

Upgrades: TypeAlias = Mapping[int, Upgrade]
"""By the version that they lead to."""


_ROUNDING_US: Final = 1000
"""A time of expiry may be written in another type, which rounds."""


@final
class Migration:
    """Of a collection that may hold older documents. Threads share it."""

    __slots__ = ("since", "steps", "upgrades")

    def __init__(self, steps: tuple[MigrationStep, ...], upgrades: Upgrades) -> None:
        self.steps = steps
        self.upgrades = upgrades
        """The functions that this process has been given; replaced as a whole."""
        self.since = steps[-1][1]
        """Documents written behind this Lsn are of the newest version."""

    @property
    def missing(self) -> list[int]:
        """Versions that nothing leads to in this process."""
        return [version for version, _ in self.steps if version not in self.upgrades]

    def is_due(self, value: bytes) -> bool:
        """Whether a stored document is older."""
        return version_of(value) < self.since

    def upgraded(self, schema: "Schema", stored: StoredDocument) -> "Prepared":
        """An older document as it is stored next. Raises MigrationError."""
        document: Any = stored.document()
        id: str = document["id"]
        version = 0
        for version, lsn in self.steps:
            if stored.version < lsn:
                document = self._step(schema.name, id, version, document)
        try:
            prepared = schema.prepare(document)
        except DocumentError as error:
            what = f"gave what cannot be stored: {error.message}"
            raise failed(schema.name, id, version, what) from error
        if prepared.fresh or prepared.id != id:
            raise failed(schema.name, id, version, "changed its id: put a copy in another way")
        if abs(prepared.expires_us - stored.expires_us) > _ROUNDING_US:
            what = f"changed {schema.expires_at!r}, when it expires: do that with update(), later"
            raise failed(schema.name, id, version, what)
        return prepared._replace(expires_us=stored.expires_us)

    def _step(self, name: str, id: str, version: int, document: Document) -> Mapping[str, Any]:
        upgrade = self.upgrades.get(version)
        if upgrade is None:
            what = f"is not there: declare db.collection({name!r}, version=..., migrate=...) first"
            raise failed(name, id, version, what)
        try:
            upgraded = upgrade(document)
        except Exception as error:
            raise failed(name, id, version, f"failed: {error!r}") from error
        if not is_map(upgraded):
            raise failed(name, id, version, f"gave no map, but {upgraded!r:.80}")
        return upgraded


def failed(name: str, id: str, version: int, what: str) -> MigrationError:
    """Of a document of a collection, which has the function to a version to blame."""
    return MigrationError(
        f"collection {name!r}, document {id!r}: the function to version {version} {what}",
        collection=name,
        key=id,
        version=version,
    )
