"""Collections for an event loop: the methods of amberdb.Collection, to be awaited.

Invariants:
- An operator cannot be awaited, so it has a method here: `contains` for `in`, `count` for len(),
  `delete` for `del`. Ids are iterated with `async for`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, final, overload

import amberdb
from amberdb import Document, FieldPath, Order, Page, Record, Where
from amberdb import ReadableCollection as Readable
from amberdb import WritableCollection as Writable
from amberdb.aio.face import Face, iterates, reads, writes
from amberdb.aio.threads import Lane, Threads

D = TypeVar("D")


class _Passed:
    """The type of an option that find() does not have. Only a map of options, passed on as
    `find(where, **options)`, could bring one: type checkers then take the overload that has it."""


class ReadableCollection(Face):
    """The methods that read. `at["event"]` of a snapshot has only these."""

    def __init__(
        self, name: str, threads: Threads, inner: Callable[[], Any], lane: Lane | None = None
    ) -> None:
        super().__init__(threads, inner, lane)
        self.name = name

    @overload
    async def get(self, id: str) -> Document | None: ...

    @overload
    async def get(self, id: str, default: D) -> Document | D: ...

    async def get(self, id: str, default: Any = None) -> Any:
        """The document, whole, or `default` when there is none (or it has expired)."""
        return await self.call("read", lambda inner: inner.get(id, default))

    async def contains(self, id: object) -> bool:
        """Whether the collection has a document with this id."""
        return await self.call("read", lambda inner: id in inner)

    @overload
    async def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: Literal[False] = False,
    ) -> Page: ...

    @overload
    async def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: Literal[True],
    ) -> Page[Record]: ...

    @overload
    async def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: bool = False,
        **options: _Passed,
    ) -> Page[Any]: ...

    async def find(  # type: ignore[misc]  # pyright: ignore[reportInconsistentOverload]  # _Passed
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: bool = False,
    ) -> Page[Any]:
        """The documents that match a filter, as a Page; with `records` of records."""
        given = {"order_by": order_by, "limit": limit, "after": after, "fields": fields}
        return await self.call("read", lambda inner: inner.find(where, **given, records=records))

    find.__doc__ = Readable.find.__doc__

    get_many = reads(Readable.get_many)
    record = reads(Readable.record)
    distinct = reads(Readable.distinct)
    count_by = reads(Readable.count_by)
    min = reads(Readable.min)
    max = reads(Readable.max)
    count = reads(Readable.count)
    search = reads(Readable.search)
    explain = reads(Readable.explain)
    documents = iterates(Readable.documents)
    __aiter__ = iterates(Readable.__iter__)


class WritableCollection(ReadableCollection):
    """The methods that read and write: `tx["event"]` of a transaction."""

    put = writes(Writable.put)
    insert = writes(Writable.insert)
    put_many = writes(Writable.put_many)
    put_records = writes(Writable.put_records)
    update = writes(Writable.update)
    delete = writes(Writable.delete)
    delete_many = writes(Writable.delete_many)
    touch = writes(Writable.touch)


@final
class Collection(WritableCollection):
    """A collection of an open database: `db["event"]`, or `await db.collection("event", ...)`.
    Tasks may share it."""

    embed_missing = writes(amberdb.Collection.embed_missing)
    expire = writes(amberdb.Collection.expire)
