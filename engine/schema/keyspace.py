"""Where things live in the one LMDB tree: every key begins with four bytes, its tree.

    tree 0  META    collections, heads, subscribers: written through the log like documents
    tree 1  LOCAL   applied Lsn, database id, which indexes are built: facts about this one file,
                    written only together with what they speak of, never logged
    tree 16...      per collection one tree of documents, and one per index; numbers are never
                    given again, so the entries of a dropped index can be removed in peace

Invariants:
- A key, tree included, has at most 511 bytes, LMDB's limit.
"""

TREE_SIZE = 4
ENTRY_PREFIX_SIZE = TREE_SIZE + 1
"""In the tree of a search index one more byte says what a key is; see search/live_rows.py."""
FIRST_TREE = 16

META = b"\0\0\0\0"
LOCAL = b"\0\0\0\1"

COUNTERS = META + b"n"
COLLECTIONS = META + b"c"
HEADS = META + b"h"
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
"""+ tree: an index whose entries are complete. Not there: in the making, or purged."""
BUILDING = LOCAL + b"p"
"""+ tree: the last document key that was read for an index in the making."""


KEY_END = b"\xff" * 512
"""Behind every key."""


def tree(number: int) -> bytes:
    return number.to_bytes(TREE_SIZE)


def end_of(prefix: bytes) -> bytes:
    """The first key after all that start with the prefix."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else KEY_END
