"""The feed of the source, made in the target.

Invariants:
- The commits of the source come in their order, each whole in one commit of the target, so that
  the values of Unique indexes are those of some commit.
- A change that the target has already changes nothing: a run that was killed begins where the last
  commit of the target was.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final, final

from amberdb import (
    Change,
    CollectionMissingError,
    Database,
    LogTruncatedError,
    Lsn,
    Record,
)
from amberdb.move.copying import Counted
from amberdb.move.declaring import declare
from amberdb.move.errors import MoveSourceError
from amberdb.move.place import NAME, Place

BATCH: Final = 500
"""Changes in one commit of the target, and those of the last commit of the source among them."""
_FEED: Final = "changes"


@final
class Following:
    """Makes the changes of the source in the target."""

    def __init__(
        self,
        source: Database,
        target: Database,
        place: Place,
        progress: Counted | None,
    ) -> None:
        self._source = source
        self._target = target
        self._place = place
        self._progress = progress
        self.changes = 0
        """Made by this run."""

    def catch_up(self) -> None:
        """Makes the changes that are there by now. Raises MoveSourceError when the source has no
        longer all of them."""
        waiting: list[Change] = []
        try:
            for change in self._source.changes(since=self._place.lsn):
                if len(waiting) >= BATCH and change.lsn != waiting[-1].lsn:
                    self._make(waiting)
                    waiting = []
                waiting.append(change)
        except LogTruncatedError as error:
            raise MoveSourceError(
                f"{self._source.path} no longer has the changes since the move began: raise "
                "subscriber_log_bytes_max there, and move into a new database"
            ) from error
        self._make(waiting)

    def wait(self, timeout_s: float) -> None:
        """Waits for a change."""
        for _ in self._source.changes(since=self._place.lsn, follow=True, timeout_s=timeout_s):
            return

    # -- inside ------------------------------------------------------------------------------

    def _make(self, changes: list[Change]) -> None:
        if not changes:
            return
        documents: list[Change] = []
        for change in changes:
            if change.op not in ("rename", "drop"):
                documents.append(change)
                continue
            self._commit(documents)
            documents = []
            self._make_name(change)
        self._commit(documents)
        self._place.reached(changes[-1].lsn)
        self.changes += len(changes)
        if self._progress is not None:
            self._progress(_FEED, self.changes)

    def _make_name(self, change: Change) -> None:
        """Renames or drops a collection, if that was not done before."""
        names = self._target.collections()
        if change.collection not in names or change.collection == NAME:
            return
        if change.new_name is None or change.new_name in names:  # it was copied by its new name
            self._target.drop_collection(change.collection)
        else:
            self._target.rename_collection(change.collection, change.new_name)
        self._place.renamed(change.collection, change.new_name)

    def _commit(self, changes: list[Change]) -> None:
        """Makes changes of documents in one commit."""
        if not changes:
            return
        by_name: dict[str, dict[str, Change]] = {}
        for change in changes:  # the last one of each document counts
            by_name.setdefault(change.collection, {})[change.id] = change
        known = {name for name in by_name if self._is_known(name)}
        records = {name: self._records(name, by_name[name].values()) for name in known}
        with self._target.transaction() as tx:
            for name, stored in records.items():
                gone = [each.id for each in by_name[name].values() if each.document is None]
                tx[name].delete_many(ids=gone)
                tx[name].put_records(stored)
            self._place.followed(tx, changes[-1].lsn)

    def _is_known(self, name: str) -> bool:
        """Whether the target has the collection, which is declared if the source has it."""
        if name == NAME:
            return False
        if name not in self._target.collections():
            try:
                definition = self._source.definition(name)
            except CollectionMissingError:  # it was renamed since, and copied by its new name
                return False
            declare(self._target, definition, with_late=False)
        return True

    def _records(self, name: str, changes: Iterable[Change]) -> list[Record]:
        """The documents that were stored, with their times. A change does not say when its document
        was created: that is read of the source, where a later change may have made it another
        one, which comes later here too."""
        stored = {each.id: each for each in changes if each.document is not None}
        present: dict[str, Record] = {}
        with suppress(CollectionMissingError):
            found = self._source[name].find(
                {"id": {"$in": list(stored)}}, limit=max(1, len(stored)), records=True
            )
            present = {each.id: each for each in found}
        records: list[Record] = []
        for id, change in stored.items():
            assert change.document is not None
            known = present.get(id) or Record(id, Lsn(0), change.time, change.time, change.document)
            records.append(replace(known, document=change.document))
        return records
