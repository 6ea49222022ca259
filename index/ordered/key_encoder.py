"""From a document to the entries of its indexes.

Invariants:
- An entry key is the keys of the fields, then 8 bytes of rowid. When the fields do not fit, the
  entry key holds their first CUT_BYTES and a digest of the rest. The rest itself, the remainder,
  goes into the entry's value, so a reader can order entries with the same beginning.
- The fast paths for one and two plain fields give the same keys as the general path (a property
  test).
- Documents are normalised: plain types, as they come from the codec.
"""

# What a document holds has no static type, so type(value) and its lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeAlias, cast, final

from amberdb._errors import InvalidDocumentError
from amberdb._types import Document
from amberdb.index.ordered.keys import (
    CUT_BYTES,
    DIGEST_BYTES,
    FIELD_KEY_BYTES_MAX,
    SCALAR_ENCODERS,
    SCALAR_ENCODERS_DESC,
    Encoder,
    encode,
    encode_desc,
    encode_rowid,
    encode_rowid_desc,
)
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.paths import Path
from amberdb.index.vector.embedding_queue import EmbeddingQueue

FieldSpec: TypeAlias = Ordered | Unique | EmbeddingQueue
"""The index kinds whose entries are sorted keys."""

_Keys: TypeAlias = Callable[[Document], list[bytes]]


@final
class KeyEncoder:
    """One declaration, compiled: the engine calls it for each document that it writes."""

    __slots__ = (
        "_paths",
        "descending",
        "encoders",
        "entries",
        "is_lossy",
        "is_multi",
        "keys",
        "paths",
        "spec",
    )

    spec: FieldSpec
    paths: tuple[str, ...]
    """The indexed fields, without direction."""
    descending: tuple[bool, ...]
    encoders: tuple[Encoder, ...]
    """encode or encode_desc for each field: they also encode the bounds of a scan."""
    keys: _Keys
    """keys(document): the distinct keys, fields part only.

    [] when the index is sparse and a field is missing or None. A list field gives one key per
    distinct element; an empty list gives the key of None. Raises InvalidDocumentError (`field`)
    when two fields hold lists, or for a value that has no key.
    """
    is_multi: Callable[[Document], bool]
    """is_multi(document): whether a field holds a list, so that it may have any number of keys."""
    is_lossy: Callable[[Document], bool]
    """is_lossy(document): whether a field holds a list, whose elements have keys of their own, or a
    float that is a whole number, which has the key of an int."""
    entries: Callable[[Document, int], list[tuple[bytes, bytes]]]
    """entries(document, rowid): for each key [(entry key, remainder)].

    The entry key is key + rowid, the rowid inverted when the last field descends, and the remainder
    b"". For a key of FIELD_KEY_BYTES_MAX bytes or more, the entry key is key[:CUT_BYTES] + digest +
    rowid, and the rest of the key is the remainder.
    """

    def __init__(self, spec: FieldSpec) -> None:
        self.spec = spec
        self.paths = spec.paths
        self.descending = spec.descending
        self.encoders = tuple(encode_desc if desc else encode for desc in self.descending)
        self._paths = tuple(Path.of(path) for path in self.paths)
        self.keys = self._compile_keys()
        self.is_multi = _compile_is_multi(self._paths)
        self.is_lossy = _compile_is_lossy(self._paths)
        self.entries = _compile_entries(self.keys, self.descending[-1])

    def unique_keys(self, document: Document) -> list[bytes]:
        """The keys that no other document may have. Those of an empty list or of a None inside a
        list do not count in a sparse index."""
        keys = self.keys(document)
        if not keys or not self.spec.sparse or not self.is_multi(document):
            return keys
        return self._general_keys(document, with_none=False)

    def _compile_fast(self) -> Callable[[Document], bytes | None]:
        """The fast path for one and two plain fields that hold single values."""
        if isinstance(self.spec, EmbeddingQueue):
            text = self.spec.compiled()
            return lambda document: None if text(document) is None else b""
        if len(self._paths) > 2 or not all(path.is_plain for path in self._paths):
            return _no_key
        names = [path.segments[0] for path in self._paths]
        encoders = [
            (SCALAR_ENCODERS_DESC if down else SCALAR_ENCODERS).get for down in self.descending
        ]
        sparse = self.spec.sparse
        first, last = names[0], names[-1]
        first_encoders, last_encoders = encoders[0], encoders[-1]

        def one(document: Document) -> bytes | None:
            value = document.get(first)
            encoder = first_encoders(type(value))
            if encoder is None or (sparse and value is None):
                return None
            try:
                return encoder(value)
            except InvalidDocumentError:
                return None  # the general path says why

        def two(document: Document) -> bytes | None:
            left = document.get(first)
            right = document.get(last)
            left_encoder = first_encoders(type(left))
            right_encoder = last_encoders(type(right))
            if left_encoder is None or right_encoder is None:
                return None
            if sparse and (left is None or right is None):
                return None
            try:
                return left_encoder(left) + right_encoder(right)
            except InvalidDocumentError:
                return None

        return one if len(names) == 1 else two

    def _compile_keys(self) -> _Keys:
        fast = self._compile_fast()
        general: _Keys = _no_keys if isinstance(self.spec, EmbeddingQueue) else self._general_keys

        def keys(document: Document) -> list[bytes]:
            key = fast(document)
            return general(document) if key is None else [key]

        return general if fast is _no_key else keys

    def _general_keys(self, document: Document, *, with_none: bool = True) -> list[bytes]:
        """For any number of fields, dotted paths, lists, and for the error messages."""
        values = [path.find(document) for path in self._paths]
        if self.spec.sparse and any(value is None for value in values):
            return []
        lists = [number for number, value in enumerate(values) if type(value) is list]
        if len(lists) > 1:
            names = " and ".join(repr(self.paths[number]) for number in lists)
            raise InvalidDocumentError(
                f"{names} both hold lists, and an index takes only one list field: {self.spec!r}",
                field=self.paths[lists[1]],
            )
        if not lists:
            return [b"".join(map(self._encode, range(len(values)), values))]
        listed = lists[0]
        parts = [
            b"" if number == listed else self._encode(number, value)
            for number, value in enumerate(values)
        ]
        front, back = b"".join(parts[:listed]), b"".join(parts[listed + 1 :])
        elements = cast(list[Any], values[listed]) or [None]
        distinct = dict.fromkeys(
            self._encode(listed, element, is_element=True)
            for element in elements
            if with_none or element is not None
        )
        return [front + key + back for key in distinct]

    def _encode(self, number: int, value: Any, *, is_element: bool = False) -> bytes:
        if type(self.spec) is Unique and type(value) in ((dict, list) if is_element else (dict,)):
            raise InvalidDocumentError(
                f"{self.paths[number]!r} holds a map, or a list inside a list: they all have the "
                f"same key, so {self.spec!r} cannot keep them unique",
                field=self.paths[number],
            )
        try:
            return self.encoders[number](value)
        except InvalidDocumentError as error:
            raise InvalidDocumentError(
                f"the field {self.paths[number]!r} holds {error.message}", field=self.paths[number]
            ) from None


def _no_key(_: Document) -> bytes | None:
    return None


def _no_keys(_: Document) -> list[bytes]:
    return []


def _compile_is_multi(paths: tuple[Path, ...]) -> Callable[[Document], bool]:
    if all(path.is_plain for path in paths) and len(paths) <= 2:
        names = [path.segments[0] for path in paths]
        first, last = names[0], names[-1]
        return lambda document: (
            type(document.get(first)) is list or type(document.get(last)) is list
        )
    return lambda document: any(type(path.find(document)) is list for path in paths)


def _compile_is_lossy(paths: tuple[Path, ...]) -> Callable[[Document], bool]:
    if all(path.is_plain for path in paths) and len(paths) <= 2:
        names = [path.segments[0] for path in paths]
        first, last = names[0], names[-1]
        return lambda document: _has_lost(document.get(first)) or _has_lost(document.get(last))
    return lambda document: any(_has_lost(path.find(document)) for path in paths)


def _has_lost(value: Any) -> bool:
    return type(value) is list or (type(value) is float and value.is_integer())


def _compile_entries(
    keys: _Keys, descending: bool
) -> Callable[[Document, int], list[tuple[bytes, bytes]]]:
    rowid_bytes = encode_rowid_desc if descending else encode_rowid

    def entries(document: Document, rowid: int) -> list[tuple[bytes, bytes]]:
        of_document = keys(document)
        tail = rowid_bytes(rowid)
        if len(of_document) == 1 and len(of_document[0]) < FIELD_KEY_BYTES_MAX:
            return [(of_document[0] + tail, b"")]
        return [
            (key + tail, b"") if len(key) < FIELD_KEY_BYTES_MAX else _cut(key, tail)
            for key in of_document
        ]

    return entries


def _cut(key: bytes, tail: bytes) -> tuple[bytes, bytes]:
    rest = key[CUT_BYTES:]
    return key[:CUT_BYTES] + blake2b(rest, digest_size=DIGEST_BYTES).digest() + tail, rest
