"""The comparison of two databases, document by document.

Invariants:
- It holds one batch of each side, whatever the size of the databases.
- What differs is named: a document by its id, a declaration by its collection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal, final

from amberdb import CollectionMissingError, Database
from amberdb.move.canonical import canonical
from amberdb.move.copying import Counted, batches, moved
from amberdb.move.declaring import declared

_DIGEST_BYTES: Final = 16
_Pairs = Iterator[tuple[str, bytes]]


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the source and the target do not have alike."""

    collection: str
    id: str
    """Of the document; empty for a declaration."""
    kind: Literal["missing", "added", "changed", "declaration"]
    """In the target."""


@final
class Comparing:
    """Compares the source with the target."""

    def __init__(
        self,
        source: Database,
        target: Database,
        batch: int,
        progress: Counted | None,
    ) -> None:
        self._source = source
        self._target = target
        self._batch = batch
        self._progress = progress
        self.digests: dict[str, str] = {}
        """By collection, of all documents of the source."""
        self.documents = 0
        """Compared."""

    def run(self) -> list[Difference]:
        """What differs, by collection and id."""
        ours, theirs = moved(self._source), moved(self._target)
        found = [Difference(name, "", "declaration") for name in sorted({*ours} ^ {*theirs})]
        for name in sorted({*ours} & {*theirs}):
            sides = (self._source.definition(name), self._target.definition(name))
            if declared(sides[0]) != declared(sides[1]):
                found.append(Difference(name, "", "declaration"))
            found += self._documents(name)
        return found

    def still(self, differences: list[Difference]) -> list[Difference]:
        """Those that are there now as well: the others were being written."""
        return [each for each in differences if self._differs(each)]

    # -- inside ------------------------------------------------------------------------------

    def _documents(self, name: str) -> Iterator[Difference]:
        digest, count = blake2b(digest_size=_DIGEST_BYTES), 0
        ours, theirs = self._pairs(self._source, name), self._pairs(self._target, name)
        one, other = next(ours, None), next(theirs, None)
        while one or other:
            if one is None or (other is not None and other[0] < one[0]):
                assert other is not None
                yield Difference(name, other[0], "added")
                other = next(theirs, None)
                continue
            digest.update(one[1])
            count += 1
            if other is None or one[0] < other[0]:
                yield Difference(name, one[0], "missing")
            else:
                if one[1] != other[1]:
                    yield Difference(name, one[0], "changed")
                other = next(theirs, None)
            one = next(ours, None)
            if self._progress is not None and (one is None or not count % self._batch):
                self._progress(name, count)
        self.digests[name] = digest.hexdigest()
        self.documents += count

    def _pairs(self, db: Database, name: str) -> _Pairs:
        for batch in batches(db, name, self._batch):
            for record, data in batch:
                yield record.id, data

    def _differs(self, difference: Difference) -> bool:
        name, id = difference.collection, difference.id
        if not id:
            return self._declared(self._source, name) != self._declared(self._target, name)
        return self._stored(self._source, name, id) != self._stored(self._target, name, id)

    def _declared(self, db: Database, name: str) -> object:
        try:
            return declared(db.definition(name))
        except CollectionMissingError:
            return None

    def _stored(self, db: Database, name: str, id: str) -> bytes | None:
        try:
            found = db[name].find({"id": id}, limit=1, records=True)
        except CollectionMissingError:
            return None
        return canonical(found[0]) if found else None
