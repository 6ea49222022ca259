"""The copy of collections: by id, in batches, each read back before its place is kept.

Invariants:
- Nothing is locked: what changes meanwhile is in the feed of the source, which is followed after
  the copy.
- A batch has at most BATCH_BYTES, but for one document that is larger.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, final

from amberdb import (
    Collection,
    CollectionDef,
    CollectionMissingError,
    Database,
    ReadableCollection,
    Record,
    Where,
)
from amberdb.move.canonical import canonical
from amberdb.move.declaring import declare
from amberdb.move.errors import MoveDamagedError
from amberdb.move.place import NAME, Place

BATCH_BYTES: Final = 4 << 20
Counted: TypeAlias = Callable[[str, int], None]
"""Told the collection in work, and how many of its documents are done."""
Batch: TypeAlias = list[tuple[Record, bytes]]
"""Records, each with its canonical() bytes."""
_CLOCKS: Final = timedelta(minutes=1)
"""How much the clocks of two machines may differ."""


@final
class Copying:
    """Copies what the place of a move says is left."""

    def __init__(
        self,
        source: Database,
        target: Database,
        place: Place,
        batch: int,
        progress: Counted | None,
    ) -> None:
        self._source = source
        self._target = target
        self._place = place
        self._batch = batch
        self._progress = progress
        self.documents = 0
        """Copied by this run."""

    def run(self) -> bool:
        """Copies the collections that were not copied yet; whether there was one. Raises
        MoveDamagedError, MoveSourceError."""
        left = [name for name in moved(self._source) if not self._place.is_copied(name)]
        for name in left:
            try:
                self._copy(self._source.definition(name))
            except CollectionMissingError as error:
                if error.facts.get("collection") != name:
                    raise
                # It was dropped or renamed meanwhile, which the feed says as well.
        return bool(left)

    def _copy(self, definition: CollectionDef) -> None:
        name, count = definition.name, 0
        declare(self._target, definition, with_late=False)
        copy, verified = self._target[name], self._place.after(name)
        for batch in batches(self._source[name], self._batch, verified):
            if self._source.definition(name).number != definition.number:
                return  # they may be of another collection, which has the name by now
            copy.put_records([record for record, _ in batch])
            self._check(copy, definition, batch)
            verified = batch[-1][0].id
            self._place.copied(name, verified, done=False)
            self.documents += len(batch)
            count += len(batch)
            if self._progress is not None:
                self._progress(name, count)
        self._place.copied(name, verified, done=True)

    def _check(self, copy: Collection, definition: CollectionDef, batch: Batch) -> None:
        """Compares a batch with what the target has of it."""
        ids = batch[0][0].id, batch[-1][0].id
        stored = _stored(copy, *ids, len(batch))
        for record, data in batch:
            if stored.get(record.id) != data and not _has_expired(definition, record):
                raise MoveDamagedError(
                    f"document {record.id!r} of {copy.name!r} is another one in "
                    f"{self._target.path} than was stored there: check that nobody else writes "
                    "there, and its disk",
                    collection=copy.name,
                    key=record.id,
                )


def _stored(copy: Collection, first: str, last: str, count: int) -> dict[str, bytes]:
    """The canonical() bytes of the documents in a range of ids, by id. In a range they are one
    statement for a server, `count` of them; there may be others between them, which were followed
    before."""
    where: Where = {"id": {"$gte": first, "$lte": last}}
    stored: dict[str, bytes] = {}
    cursor: str | None = None
    while True:
        page = copy.find(where, order_by="id", limit=count + 1, after=cursor, records=True)
        stored.update((each.id, canonical(each)) for each in page)
        cursor = page.cursor
        if cursor is None:
            return stored


def moved(source: Database) -> list[str]:
    """The collections that are moved."""
    return [name for name in source.collections() if name != NAME]


def batches(
    source: ReadableCollection, batch: int, after: str | None = None, where: Where | None = None
) -> Iterator[Batch]:
    """The records of a collection, those that match, by id, in batches of at most `batch`
    documents."""
    limit = batch
    while True:
        rest: Where = {} if after is None else {"id": {"$gt": after}}
        query: Where = {"$and": [where, rest]} if where and rest else where or rest
        records = source.find(query, order_by="id", limit=limit, records=True)
        if not records:
            return
        after = records[-1].id
        found = [(record, canonical(record)) for record in records]
        yield found
        size = sum(len(data) for _, data in found) // len(found)
        limit = max(1, min(batch, BATCH_BYTES // (size + 1)))


def _has_expired(definition: CollectionDef, record: Record) -> bool:
    """Whether a document may have expired by the clock of the target."""
    if definition.expires_at is None:
        return False
    until = record.document.get(definition.expires_at)
    if isinstance(until, int | float):
        until = datetime.fromtimestamp(until, UTC)
    return isinstance(until, datetime) and until <= datetime.now(UTC) + _CLOCKS
