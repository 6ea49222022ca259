"""The expiry index as a query reads it: as an ordered index over the field `expires_at`.

    prefix | expires_us + 2^63 | rowid  ->  id

Invariants:
- It is complete: a collection gets its `expires_at` while it is empty. Documents that never expire
  have no entry.
- Its keys are times, whether the field holds numbers or datetimes, and differ from the field by
  less than SLACK_US. So a range of it holds all that match, and may hold others.
- A document that was never upgraded, and has a datetime, has exactly its time.
"""

from typing import Final

from amberdb.engine.schema.definition import CollectionDef, IndexDef
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.index.ordered.key_decoder import decoded
from amberdb.index.ordered.keys import DATETIME_ZERO, KEYSPACE_BYTES, TAG_DATETIME, TAG_NUMBER
from amberdb.index.ordered.ordered import Ordered

SLACK_US: Final = 10_000
"""An upgrade may change the field by a millisecond, and the time in the header stays; a number of
seconds rounds by less."""
TIME_BYTES: Final = 8
TIME_ZERO: Final = 1 << 63
"""Added to a time, so that keys sort as times do."""
_TIMES: Final = (TAG_NUMBER, TAG_DATETIME)
_TIME_MAX: Final = (1 << 64) - 1


class ExpiryIndex(CompiledIndex):
    """The expiry index of one collection."""

    __slots__ = ("is_exact",)

    def __init__(self, definition: CollectionDef, field: str) -> None:
        spec = Ordered(field, sparse=True)
        super().__init__(IndexDef(spec, definition.expiry_keyspace, complete_from=1), spec)
        self.name = f"expiry:{field}"
        self.is_exact = definition.version == 1
        """No document was upgraded."""

    def range_of(self, low: bytes | None, high: bytes | None) -> tuple[bytes, bytes]:
        """The range of the documents whose field has a key from `low` to `high`; empty when those
        are no times. None is the end of all times."""
        start, end = 0, _TIME_MAX
        if low is not None:
            if low[0] not in _TIMES:
                return self.prefix, self.prefix
            start = _time_of(low) - SLACK_US
        if high is not None:
            if high[0] not in _TIMES:
                return self.prefix, self.prefix
            end = _time_of(high) + SLACK_US
        if end < 0 or start > _TIME_MAX:
            return self.prefix, self.prefix
        return (
            self.prefix + max(start, 0).to_bytes(TIME_BYTES),
            end_of(self.prefix + min(end, _TIME_MAX).to_bytes(TIME_BYTES)),
        )


def time_of_entry(key: bytes) -> int:
    """The time of expiry, in microseconds since 1970, of the key of an entry."""
    return int.from_bytes(key[KEYSPACE_BYTES : KEYSPACE_BYTES + TIME_BYTES]) - TIME_ZERO


def _time_of(key: bytes) -> int:
    """The time of a datetime, or a number of seconds, plus TIME_ZERO, from its key."""
    if key[0] == TAG_DATETIME:
        return int.from_bytes(key[1:]) - DATETIME_ZERO + TIME_ZERO
    (seconds,) = decoded(key, 0, (False,)) or (0,)
    limit = float(_TIME_MAX)
    return int(max(-limit, min(limit, seconds * 1_000_000.0))) + TIME_ZERO
