"""Types that all layers share.

Invariants:
- An Lsn is `epoch << 40 | number`. It grows with every commit and is never assigned twice: each
  open after a crash takes the next epoch, so the Lsns of a lost tail are never reused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NewType, TypeAlias

from amberdb._public import public

Lsn = NewType("Lsn", int)
"""Log sequence number: the position of a commit in the log, and the version of its documents."""

public(Lsn)

NO_LSN = Lsn(0)
"""Before the first commit."""

LSN_NUMBER_BITS = 40

Sync: TypeAlias = Literal["always", "interval", "os"]
"""The failures that an acknowledged commit survives.

`always`    power loss and process death: the log is synced before the call returns.
`interval`  process death; on power loss at most the last `sync_interval_ms` are lost.
`os`        process death; on power loss the commits that the operating system had not written
            yet are lost.
"""

Isolation: TypeAlias = Literal["serializable"]
"""What transactions are told of each other beyond what a server does by default."""

Document: TypeAlias = dict[str, Any]
"""A map from str to None, bool, int (64 bit), float (not NaN), str, bytes, aware datetime, list
or map of these."""

FieldPath: TypeAlias = str | Sequence[str]
"""A field: a dotted path, or the list of the keys on the way, which may contain dots themselves."""

Where: TypeAlias = Mapping[Any, Any]
"""A filter: see docs/queries.md. A name is a path, a str or a tuple of str (a union of the two as
the type of the keys would refuse literals, since keys of a Mapping are invariant)."""

Patch: TypeAlias = Where
"""Changes of a document, for update(): see docs/queries.md."""

Order: TypeAlias = str | Sequence[FieldPath]
"""One field or several, each optionally with `-` in front for descending."""

Progress: TypeAlias = Callable[[str, int], None]
"""A callback of long operations: the collection or index in work, and the documents done there."""


def lsn_epoch(lsn: int) -> int:
    """The epoch of an Lsn: it counts the opens after a crash."""
    return lsn >> LSN_NUMBER_BITS


def lsn_number(lsn: int) -> int:
    """The number of an Lsn: it counts the commits."""
    return lsn & ((1 << LSN_NUMBER_BITS) - 1)
