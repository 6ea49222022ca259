"""The comparison of two databases, document by document.

Invariants:
- It holds one batch of each side, whatever the size of the databases.
- What differs is named: a document by its id, a declaration by its collection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Final, Literal, TypeAlias, final

from amberdb import CollectionMissingError, Database, Record
from amberdb.move.canonical import canonical
from amberdb.move.copying import Counted, batches, moved
from amberdb.move.declaring import declared

_DIGEST_BYTES: Final = 16
Pair: TypeAlias = tuple[Record, bytes]
"""A record, and its canonical() bytes."""


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
        for one, other in side_by_side(
            self._pairs(self._source, name), self._pairs(self._target, name)
        ):
            if one is None:
                assert other is not None
                yield Difference(name, other[0].id, "added")
                continue
            digest.update(one[1])
            count += 1
            if other is None:
                yield Difference(name, one[0].id, "missing")
            elif one[1] != other[1]:
                yield Difference(name, one[0].id, "changed")
            if self._progress is not None and not count % self._batch:
                self._progress(name, count)
        if self._progress is not None:
            self._progress(name, count)
        self.digests[name] = digest.hexdigest()
        self.documents += count

    def _pairs(self, db: Database, name: str) -> Iterator[Pair]:
        return chain.from_iterable(batches(db[name], self._batch))

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


def side_by_side(
    ours: Iterator[Pair], theirs: Iterator[Pair]
) -> Iterator[tuple[Pair | None, Pair | None]]:
    """Two databases' records of a collection, by id: each with that of the same id."""
    one, other = next(ours, None), next(theirs, None)
    while one or other:
        if one is None or (other is not None and other[0].id < one[0].id):
            yield None, other
            other = next(theirs, None)
        elif other is None or one[0].id < other[0].id:
            yield one, None
            one = next(ours, None)
        else:
            yield one, other
            one, other = next(ours, None), next(theirs, None)
