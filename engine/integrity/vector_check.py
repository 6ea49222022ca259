"""check() of the vectors of a collection: what documents name, and what the blocks hold.

Invariants:
- The state of LMDB is checked, without the memtables: these have whole documents.
- One pass over the blocks, one over the documents; between them a number for each block.
"""

from collections.abc import Callable

from amberdb._errors import CorruptionError
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import places
from amberdb.engine.schema.vector_block import sound_rows, unpack_block
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES


def check_vectors(view: View, schema: Schema, report: Callable[[str], None]) -> None:
    """Reports each row that fails its checksum, that is missing, or that no document names. Raises
    EngineError when pages cannot be read."""
    prefix = schema.vector_prefix
    if not prefix:
        return
    unnamed: dict[bytes, int] = {}
    """By block, a bit for each row that no document has named so far."""
    for key, value in view.scan_stored(prefix, end_of(prefix)):
        try:
            rows, sound = unpack_block(key, value), sound_rows(key, value)
        except CorruptionError as error:
            report(f"{schema.name}: {error}")
            continue
        unnamed[key] = sum(1 << slot for slot in rows)
        for slot in rows.keys() - sound.keys():
            report(f"{schema.name}: block {key.hex()} of vectors: slot {slot} fails its checksum")
    for key, value in view.scan_stored(schema.prefix, end_of(schema.prefix)):
        try:
            unpack(key, value)
        except CorruptionError:
            continue  # found by the check of the documents
        for place in places(schema.vectors, value):
            bits = unnamed.get(place.key, 0)
            if not bits >> place.slot & 1:
                report(f"{schema.name}: the vectors of {key[KEYSPACE_BYTES:]!r} are missing")
            unnamed[place.key] = bits & ~(1 << place.slot)
    for key, bits in unnamed.items():
        if bits:
            report(
                f"{schema.name}: block {key.hex()} of vectors has {bits.bit_count()} rows that no "
                "document names"
            )
