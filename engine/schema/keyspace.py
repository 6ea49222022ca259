"""Keyspaces: every key of the one LMDB tree begins with four bytes, the number of its keyspace.

    0      META    collections, counters, subscribers: written through the log as documents are
    1      LOCAL   applied Lsn, database id, marks of built indexes: facts about this one file,
                   never logged, written in the LMDB transaction that makes them true
    16...          for each collection one keyspace of documents, one of expiry, one per index; a
                   number is never reused, so entries of a dropped index can be deleted later

Invariants:
- A key, prefix included, has at most LMDB_KEY_BYTES_MAX bytes.
"""

from typing import TypeAlias

from amberdb.index.ordered.keys import KEYSPACE_BYTES, LMDB_KEY_BYTES_MAX

ENTRY_PREFIX_SIZE = KEYSPACE_BYTES + 1
"""In the keyspace of a search index one more byte gives the kind of a key: see
search/live_rows.py."""
FIRST_KEYSPACE = 16
KEYS_END = b"0000"
"""All keys are below it: no number of a keyspace comes near. In LMDB's unnamed tree the names of
trees begin here."""

META = b"\0\0\0\0"
LOCAL = b"\0\0\0\1"

COUNTERS = META + b"n"
COLLECTIONS = META + b"c"
COLLECTION_COUNTERS = META + b"h"
SUBSCRIBERS = META + b"s"
REQUESTS = META + b"r"
"""+ client: its last request that was done, and the answer: see bindings/remote/requests.py."""
KNOWN_BACKUPS = META + b"k"
ERASURES = META + b"e"
CLOCK = META + b"t"
"""The clock that accept_clock() has accepted: see commit/clock.py."""
ARCHIVED = META + b"b"
"""The newest backup: the database's id, its last Lsn, and whether the log after it is held."""

APPLIED = LOCAL + b"applied"
LAST_TIME = LOCAL + b"time"
"""The time of the last applied commit: times of commits never go back."""
LOG_OFFSET = LOCAL + b"log"
"""Where the applied commit is in its segment of the log, a hint for the next open."""
DATABASE_ID = LOCAL + b"database"
BUILT = LOCAL + b"b"
"""+ keyspace: the index's entries are complete. Missing while it is built, and after a purge."""
BUILDING = LOCAL + b"p"
"""+ keyspace: the last document key that the build of the index has read."""

KEY_END = b"\xff" * (LMDB_KEY_BYTES_MAX + 1)
"""Sorts after every key."""

Effects: TypeAlias = dict[bytes, bytes | None]
"""The keys that a commit writes, with their new values; None for a key that is deleted."""


def prefix_of(number: int) -> bytes:
    """The first bytes of all keys in a keyspace."""
    return number.to_bytes(KEYSPACE_BYTES)


FIRST_PREFIX = prefix_of(FIRST_KEYSPACE)
"""Keys from here on are of the keyspaces of collections."""


def end_of(prefix: bytes) -> bytes:
    """The first key after all that start with the prefix."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else KEY_END
