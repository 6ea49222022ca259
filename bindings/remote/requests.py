"""The last request of each client, committed with its effect: so a request that is sent again, to
the same leader or to the next one, is done at most once.

    REQUESTS + client  ->  number u64 | time in microseconds u64 | answer, msgpack

Invariants:
- A client has one request under way at a time, and numbers them upwards.
- The entry of a client that has sent nothing for KEPT_US is dropped.
"""

import time
from typing import Any, Final

from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.database import Database
from amberdb.engine.schema.codec import decode_unchecked, encode
from amberdb.engine.schema.keyspace import REQUESTS, end_of

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
