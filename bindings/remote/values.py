"""Messages between a client and the leader: msgpack, as documents are stored, and what calls take
and return besides.

    frame   size u32, big-endian | msgpack
    ext 1, 2    a vector, several vectors: engine/schema/codec.py
    ext 32      amberdb.REMOVE
    ext 33      a Page: [items, cursor]
    ext 34      Hits: [hits, how, cursor]; a hit is [id, score, document, snippet, ranks]
    ext 35      a Record: [id, version, created_at, updated_at, document]
    ext 36      an error: [name, message, facts]

Invariants:
- A value comes back equal in type, or encoding it raises TypeError or ValueError.
- An error is one of amberdb's or of Python's own; any other is an AmberError with its name.
"""

import builtins
import socket
from collections.abc import Mapping
from struct import Struct
from typing import Any, Final

import msgspec

import amberdb
from amberdb import AmberError, Hit, Hits, Page, Record
from amberdb.engine.schema.codec import VECTOR, VECTORS, encode_vectors, vectors_in

FRAME_BYTES_MAX: Final = (1 << 32) - 1

_SIZE: Final = Struct(">I")
assert _SIZE.size == 4

_REMOVE, _PAGE, _HITS, _RECORD, _ERROR = range(32, 37)
