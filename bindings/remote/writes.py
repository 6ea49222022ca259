"""The writes of a collection that another process makes, alone or inside a transaction.

Invariants:
- A document is checked here as by a local write, with its errors, and again where it is stored.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from amberdb._types import Lsn, Patch, Sync, Where
from amberdb.engine.commit.write_batch import OnConflict
from amberdb.engine.database.readable_collection import listed_ids
from amberdb.engine.database.writable_collection import WritableCollection, times_us
from amberdb.engine.query.page import Record
from amberdb.engine.schema.patch import Changes
from amberdb.remote.arguments import sendable, sendable_filter, sendable_patch


class SentWrites(WritableCollection):
    """The methods of a WritableCollection, each sent as one request."""

    @abstractmethod
    def _sent(self, method: str, *args: Any, sync: Sync | None, **kwargs: Any) -> Any:
        """The result of a method of the collection where the database is open."""

    def put(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """As Collection.put()."""
        return cast(str, self._sent("put", *self._prepared([document]), sync=sync))

    def insert(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """As Collection.insert()."""
        return cast(str, self._sent("insert", *self._prepared([document]), sync=sync))

    def put_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        *,
        on_conflict: OnConflict = "replace",
        sync: Sync | None = None,
    ) -> list[str]:
        """As Collection.put_many()."""
        listed: list[Mapping[str, Any]] = list(documents)
        known = self._unembedded(listed) if on_conflict == "keep" else frozenset[int]()
        sent = self._prepared(listed, known)
        ids = self._sent("put_many", sent, on_conflict=sendable(on_conflict), sync=sync)
        return cast(list[str], ids)

    def put_records(self, records: Iterable[Record], *, sync: Sync | None = None) -> list[str]:
        """As Collection.put_records()."""
        listed, schema = list(records), self._schema()
        for each in listed:
            times_us(each)  # raises
        prepared = [
            replace(each, document=schema.prepare(each.document).document) for each in listed
        ]
        return cast(list[str], self._sent("put_records", sendable(prepared), sync=sync))

    def update(
        self,
        id: str,
        patch: Patch,
        *,
        if_version: int | None = None,
        sync: Sync | None = None,
    ) -> Lsn:
        """As Collection.update()."""
        embedders = self._embedders()
        if embedders.of(self.name):
            changes = Changes(patch)
            (embedded,) = self._embedded([changes.assigned()])
            patch = {**patch, **embedders.vectors_of(self.name, changes, embedded)}
        version = sendable(if_version)
        lsn = self._sent(
            "update", sendable(id), sendable_patch(patch), if_version=version, sync=sync
        )
        return Lsn(lsn)

    def delete(self, id: str, *, sync: Sync | None = None) -> bool:
        """As Collection.delete()."""
        return bool(self._sent("delete", sendable(id), sync=sync))

    def delete_many(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        sync: Sync | None = None,
    ) -> int:
        """As Collection.delete_many()."""
        listed = None if ids is None else sendable(listed_ids(ids))
        sent = self._sent("delete_many", sendable_filter(where), ids=listed, sync=sync)
        return cast(int, sent)

    def touch(
        self,
        ids: Iterable[str],
        until: datetime | float | None,
        *,
        sync: Sync | None = None,
    ) -> int:
        """As Collection.touch()."""
        listed = sendable(listed_ids(ids))
        return cast(int, self._sent("touch", listed, sendable(until), sync=sync))

    def _prepared(
        self, documents: list[Mapping[str, Any]], known: frozenset[int] = frozenset()
    ) -> list[Mapping[str, Any]]:
        """Documents in the types that are stored, with vectors but at the `known` positions. Raises
        as put()."""
        new = iter(self._embedded([d for at, d in enumerate(documents) if at not in known]))
        schema = self._schema()
        return [
            schema.prepare(document if at in known else next(new)).document
            for at, document in enumerate(documents)
        ]
