"""Keyspaces: every key of the one LMDB tree begins with four bytes, the number of its keyspace.

    0      META    collections, counters, subscribers: written through the log like documents
    1      LOCAL   applied Lsn, database id, which indexes are built: facts about this one file,
                   written only together with what they speak of, never logged
    16...          per collection one keyspace of documents, and one per index; a number is never
                   reused, so the entries of a dropped index can be removed later

Invariants:
- A key, prefix included, has at most LMDB_KEY_BYTES_MAX bytes.
"""

from typing import TypeAlias

from amberdb.index.ordered.keys import KEYSPACE_BYTES

ENTRY_PREFIX_SIZE = KEYSPACE_BYTES + 1
"""In the keyspace of a search index one more byte says what a key is; see search/live_rows.py."""
FIRST_KEYSPACE = 16

META = b"\0\0\0\0"
LOCAL = b"\0\0\0\1"

COUNTERS = META + b"n"
COLLECTIONS = META + b"c"
COLLECTION_COUNTERS = META + b"h"
SUBSCRIBERS = META + b"s"
KNOWN_BACKUPS = META + b"k"
ERASURES = META + b"e"
ARCHIVED = META + b"b"
"""The newest backup: the database's id, the last Lsn, and whether the log behind it is held."""

APPLIED = LOCAL + b"applied"
LAST_TIME = LOCAL + b"time"
"""When the last applied commit was made: the clock of a database never goes back."""
DATABASE_ID = LOCAL + b"database"
BUILT = LOCAL + b"b"
"""+ keyspace: an index whose entries are complete. Not there: in the making, or purged."""
BUILDING = LOCAL + b"p"
"""+ keyspace: the last document key that was read for an index in the making."""


KEY_END = b"\xff" * 512
"""After every key."""


def prefix_of(number: int) -> bytes:
    """The first bytes of all keys in a keyspace."""
    return number.to_bytes(KEYSPACE_BYTES)


def end_of(prefix: bytes) -> bytes:
    """The first key after all that start with the prefix."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else KEY_END


Effects: TypeAlias = dict[bytes, bytes | None]
"""What a commit leaves behind: keys and their new values, None for those that are gone."""
