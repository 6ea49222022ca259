"""A stored document is split: LMDB has its vectors in blocks beside it (vector_block.py).

    memtable, log   whole documents
    checkpoint      split(): the document with places in place of its vectors, and the vectors
    reads of LMDB   join(): the document with its vectors

Invariants:
- Arrays of the fields that were ever declared as vectors are split off, those of any other shape
  stay in the document: an array of no vectors, and lists, which are not arrays.
- whole() gives the bytes that split() was given.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.schema.codec import (
    DIM_BYTES,
    STORED,
    VECTOR,
    VECTORS,
    Extension,
    decode_raw,
    decode_unchecked,
    encode,
    place_in,
    vector_array,
)
from amberdb.engine.schema.document_format import BODY, is_sound, repack, rowid_of
from amberdb.engine.schema.vector_block import (
    DIM_MAX,
    FIELDS_MAX,
    BlockReader,
    GetBlock,
    StoredVector,
    VectorsAt,
    VectorsSource,
    missing_vector,
    place_of,
)

if TYPE_CHECKING:
    from amberdb.index.vector.vector import Vector


def join(document: Document, fields: Iterable[str], vectors_at: VectorsAt) -> Document:
    """The document, its stored vectors read. Raises CorruptionError."""
    for name in fields:
        value = document.get(name)
        if type(value) is StoredVector:
            data = vectors_at(value)
            if data is None:
                raise missing_vector(value)
            document[name] = vector_array(data, value.dim)
    return document


def join_all(documents: Iterable[Document], fields: Iterable[str], vectors: VectorsSource) -> None:
    """join() for several documents, of which the source hears before. Raises CorruptionError."""
    documents = list(documents)
    names = list(fields)
    vectors.expect_vectors(place for each in documents for place in _places_in(names, each))
    for document in documents:
        join(document, names, vectors.vectors_at)


def block_reader(
    prefix: bytes, fields: Iterable[str], spec: "Vector", get: GetBlock
) -> BlockReader | None:
    """A reader of the vectors of an index; None where documents are not split. The arguments are
    those of split()."""
    numbers = {name: number for number, name in enumerate(fields)}
    number = numbers.get(spec.field, FIELDS_MAX)
    if not prefix or number >= FIELDS_MAX:
        return None
    return BlockReader(get, prefix, number, spec.dim, several=spec.multi)


def no_vectors(place: StoredVector) -> None:
    """As vectors_at() for documents that are whole already."""


def split(
    prefix: bytes, fields: Iterable[str], key: bytes, value: bytes
) -> tuple[bytes, dict[StoredVector, memoryview]]:
    """The value of a document without its vectors, and those by their places: views of `value`.

    prefix  of the keyspace of the vectors
    fields  that were ever declared as vectors, in the order of the catalog
    """
    document: Document = decode_raw(memoryview(value)[BODY])
    rowid = rowid_of(value)
    vectors: dict[StoredVector, memoryview] = {}
    for number, name in zip(range(FIELDS_MAX), fields, strict=False):
        array = document.get(name)
        if type(array) is not Extension or array.code not in (VECTOR, VECTORS):
            continue
        data: Any = array.data
        several = array.code == VECTORS
        dim = int.from_bytes(data[:DIM_BYTES], "little") if several else len(data) // 4
        data = data[DIM_BYTES:] if several else data
        if 0 < dim <= DIM_MAX and len(data):
            place = place_of(prefix, number, dim, rowid, several=several)
            vectors[place] = data
            document[name] = Extension(STORED, place)
    return (repack(key, value, encode(document)) if vectors else value), vectors


def vectors_of(
    fields: Iterable[str], bodies: Iterable[bytes], vectors: VectorsSource
) -> dict[StoredVector, bytes | None]:
    """The vectors of encoded documents, by their places. Raises CorruptionError."""
    found = [place for body in bodies for place in _places(fields, body)]
    vectors.expect_vectors(found)
    return {place: vectors.vectors_at(place) for place in found}


def places(fields: Iterable[str], value: bytes) -> set[StoredVector]:
    """Where the vectors of a stored document are."""
    return _places(fields, value[BODY])


def _places(fields: Iterable[str], body: bytes) -> set[StoredVector]:
    return _places_in(fields, decode_unchecked(body))


def _places_in(fields: Iterable[str], document: Document) -> set[StoredVector]:
    values = [document.get(name) for name in fields]
    return {value for value in values if type(value) is StoredVector}


def whole(key: bytes, value: bytes, vectors_at: VectorsAt, lost: list[str] | None = None) -> bytes:
    """The value of a document with its vectors, as the log has it. Raises CorruptionError; with
    `lost` fields whose vectors cannot be read are left out, and added to it. A document that fails
    its checksum stays as it is."""
    if not is_sound(key, value):
        return value
    document: Document = decode_raw(memoryview(value)[BODY])
    is_split = False
    for name, stored in [*document.items()]:
        if type(stored) is not Extension or stored.code != STORED:
            continue
        is_split = True
        place = place_in(memoryview(stored.data))
        try:
            document[name] = _extension(place, vectors_at)
        except CorruptionError:
            if lost is None:
                raise
            lost.append(name)
            del document[name]
    return repack(key, value, encode(document)) if is_split else value


def _extension(place: StoredVector, vectors_at: VectorsAt) -> Extension:
    """The vectors at a place as a document that is not split has them. Raises CorruptionError."""
    data = vectors_at(place)
    if data is None:
        raise missing_vector(place)
    if not place.dim:
        return Extension(VECTOR, data)
    return Extension(VECTORS, place.dim.to_bytes(DIM_BYTES, "little") + data)
