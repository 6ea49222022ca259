"""The last request of each client, committed with its effect: so a request that is sent again, to
the same leader or to the next one, is done at most once.

    REQUESTS + client  ->  number u64 | time in microseconds u64 | answer, msgpack

Invariants:
- A client has one request under way at a time, and numbers them upwards.
- The entry of a client that has sent nothing for KEPT_US is dropped.
"""

import time
from typing import Any, Final, TypeVar, final

from amberdb._types import Sync
from amberdb.engine.commit.queued_write import Work
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.engine.schema.codec import decode_unchecked, encode
from amberdb.engine.schema.keyspace import REQUESTS, end_of

_T = TypeVar("_T")

CLIENT_BYTES: Final = 16
KEPT_US: Final = 3_600_000_000
_NUMBER_BYTES: Final = 8
_HEAD_BYTES: Final = 16


def recorded(batch: WriteBatch, client: bytes, number: int) -> dict[str, Any] | None:
    """The answer to a request that was done already; None for any other."""
    value = batch.view.get(REQUESTS + client)
    if value is None or int.from_bytes(value[:_NUMBER_BYTES]) != number:
        return None
    answer: dict[str, Any] = decode_unchecked(value[_HEAD_BYTES:])
    return answer


def record(batch: WriteBatch, client: bytes, number: int, answer: dict[str, Any]) -> None:
    """Adds the answer to a request to the commit of its effect."""
    head = number.to_bytes(_NUMBER_BYTES) + (time.time_ns() // 1000).to_bytes(_NUMBER_BYTES)
    batch.set(REQUESTS + client, head + encode(answer))


def refuse_again(batch: WriteBatch, client: bytes, number: int) -> None:
    """Raises DoneBeforeError for a request that was done already."""
    answer = recorded(batch, client, number)
    if answer is not None:
        raise DoneBeforeError(answer)


class DoneBeforeError(Exception):
    """A request was done already: ends a write that would do it again."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("it was done already")
        self.answer = answer


@final
class OnceCollection(Collection):
    """A collection for one request: its small writes, which share commits with those of other
    threads, are done at most once."""

    METHODS: Final = frozenset({"put", "insert", "update", "delete"})

    def __init__(self, collection: Collection, client: bytes, number: int, is_again: bool) -> None:
        super().__init__(collection.name, collection._handle)
        self._client = client
        self._number = number
        self._is_again = is_again

    def _write(self, work: Work[_T], sync: Sync | None, key: bytes | None) -> _T:
        def once(writer: WriteBatch) -> _T:
            if self._is_again:
                refuse_again(writer, self._client, self._number)
            value = work(writer)
            record(writer, self._client, self._number, {"value": value})
            return value

        return super()._write(once, sync, key)


def forget_old(db: Database) -> int:
    """Drops the entries of clients that have ended; how many."""
    oldest = time.time_ns() // 1000 - KEPT_US
    with db.transaction() as tx:
        batch = tx.writer()
        old = [
            key
            for key, value in batch.view.scan(REQUESTS, end_of(REQUESTS))
            if int.from_bytes(value[_NUMBER_BYTES:_HEAD_BYTES]) < oldest
        ]
        for key in old:
            batch.set(key, None)
    return len(old)


def is_client(value: object) -> bool:
    """Whether a value of a message is the name of a client."""
    return isinstance(value, bytes) and len(value) == CLIENT_BYTES
