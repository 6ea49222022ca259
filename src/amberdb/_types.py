"""Names of the types that every layer shares.

Invariants:
- An Lsn is `epoch << 40 | number`. It grows with every commit, and is never given twice: each
  unclean open takes the next epoch, so the numbers of a lost tail are never reused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NewType, TypeAlias

Lsn = NewType("Lsn", int)
"""Log sequence number: the place of one commit in the log, and the version of what it wrote."""

NO_LSN = Lsn(0)
"""Before the first commit."""

LSN_NUMBER_BITS = 40

Sync: TypeAlias = Literal["always", "interval", "os"]
"""What an acknowledged commit survives.

`always`    power loss and process death: the log is synced before the call returns.
`interval`  process death; on power loss at most the last `sync_interval_ms` are lost.
`os`        process death; on power loss whatever the operating system had not written yet.
"""

Document: TypeAlias = dict[str, Any]
"""A map from str to None, bool, int (64 bit), float (not NaN), str, bytes, aware datetime, list
or map of these."""

Where: TypeAlias = Mapping[str, Any]
"""A filter: see docs/queries.md."""

Order: TypeAlias = str | Sequence[str]
"""One field or several, each optionally with `-` in front for descending."""

Progress: TypeAlias = Callable[[str, int], None]
"""Called during long work with the name of the collection or index that it is at, and the count
of documents done there."""


def lsn_epoch(lsn: int) -> int:
    """The count of unclean opens before this commit."""
    return lsn >> LSN_NUMBER_BITS


def lsn_number(lsn: int) -> int:
    """The count of commits up to this one."""
    return lsn & ((1 << LSN_NUMBER_BITS) - 1)
