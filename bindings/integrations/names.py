"""Names of any length, as ids of documents, which have 480 bytes at most.

    up to 400 bytes    the name itself
    longer             its first 400 bytes, cut between characters, and the SHA-256 of the whole

Invariants:
- Two names have two ids: that of a longer name has more than 400 bytes.
- An id begins with what begins_id() makes of a beginning of the name.
"""

import hashlib
from typing import Final

BYTES_MAX: Final = 400


def name_id(name: str, bytes_max: int = BYTES_MAX) -> str:
    """The id of a name. Raises UnicodeEncodeError for a name that ends in half an emoji."""
    encoded = name.encode()
    if len(encoded) <= bytes_max:
        return name
    return begins_id(name, bytes_max) + hashlib.sha256(encoded).hexdigest()


def begins_id(beginning: str, bytes_max: int = BYTES_MAX) -> str:
    """What the ids begin with of all names with this beginning; other names' may as well."""
    return beginning.encode()[:bytes_max].decode(errors="ignore")
