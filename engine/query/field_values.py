"""The values of one field: the distinct ones, how many documents have each, the two ends.

They are read from an ordered index in which the field follows fields that the filter fixes. Further
entries of one value are passed over, or skipped by a seek when there are many (a skip scan).
Without such an index the values are read from the documents that match.

Invariants:
- An index changes how fast the answer comes, never the answer. Keys are not decoded: a value comes
  from a document that has it.
- A list stands for its elements, an empty one for nothing; a missing field for None.
- Values are the same that a filter takes as equal: 1 and 1.0, and not True.
"""

# The values of a document have no static type, so lists of them are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import QueryError
from amberdb._types import Document, FieldPath, Where
from amberdb.engine.query.access import Access, by_index, keys_of
from amberdb.engine.query.page import parse_field
from amberdb.engine.query.query import RANGES_MANY, Query
from amberdb.engine.query.scan import documents, orphan
from amberdb.engine.schema.document_format import BODY, damaged, expires_us
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.ordered_index import MULTI, CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.index_scan import entries
from amberdb.engine.storage.source import Place, Range, Source
from amberdb.index.ordered.keys import TAG_LIST, encode, encode_desc
from amberdb.index.paths import Path

STEPS_MAX: Final = 16
"""Entries of one value that are passed over before a seek to the next one, which costs as much."""

Head: TypeAlias = tuple[bytes, Range]
"""The keys before the field in an index, and the range of the field's keys behind them."""


@dataclass(frozen=True, slots=True)
class FieldValues:
    """One question about the values of a field in the documents that match a filter."""

    schema: Schema
    query: Query
    path: Path

    @classmethod
    def of(cls, schema: Schema, field: FieldPath, where: Where | None) -> "FieldValues":
        """Parses and checks the question. Raises QueryError."""
        path = parse_field(field, "the field")
        if path.name in schema.vectors:
            raise QueryError(f"{path.name!r} holds vectors, which have no order")
        return cls(schema, Query.of(schema, where), path)

    def distinct(self, source: Source) -> list[Any]:
        """The distinct values, ascending."""
        skip = self._skip(source)
        found = self._scanned(source) if skip is None else skip.values()
        return _sorted(found)

    def counts(self, source: Source) -> dict[Any, int]:
        """The number of documents that have each value, by value, ascending."""
        skip = self._skip(source, counts=True)
        found = self._scanned(source) if skip is None else skip.all_values()
        counts: dict[Any, tuple[Any, int]] = {}
        for value in found:
            key = _identity(value)
            first, count = counts.get(key, (value, 0))
            counts[key] = first, count + 1
        numbers: dict[Any, int] = {}
        for value in _sorted(first for first, _ in counts.values()):
            if type(value) in (list, dict) or value in numbers:
                raise QueryError(
                    f"{self.path.name!r} holds {value!r}, which cannot be a key of a dict beside "
                    "the other values: count a field inside it, or count(where) a value at a time"
                )
            numbers[value] = counts[_identity(value)][1]
        return numbers

    def end(self, source: Source, *, largest: bool) -> Any:
        """The smallest or largest value, None and missing ones left out; None without any."""
        skip = self._skip(source, without_none=True)
        found = self._scanned(source) if skip is None else skip.ends(largest)
        values = [value for value in found if value is not None]
        return (max if largest else min)(values, key=encode, default=None)

    def explain(self, source: Source) -> dict[str, Any]:
        """How distinct() and counts() are read, as a map for the user."""
        skip = self._skip(source)
        if skip is None:
            return {**self.query.explain(source), "skip": False}
        return {"index": skip.index.spec.name, "skip": True}

    # -- inside ------------------------------------------------------------------------------

    def elements(self, document: Document) -> list[Any]:
        """The values that a document has in the field."""
        value = self.path.find(document)
        return value if type(value) is list else [value]

    def _scanned(self, source: Source) -> Iterator[Any]:
        """The values of each document that matches, repeated."""
        query = self.query
        plan = query.narrowest(source)
        shape = f"{query.filter.shape} values of {self.path.name}" if plan.is_full_scan else ""
        for _, _, document in documents(source, self.schema, plan, shape=shape):
            values = self.elements(document)
            if len(values) < 2:
                yield from values
            else:
                yield from {_identity(value): value for value in values}.values()

    def _skip(
        self, source: Source, *, without_none: bool = False, counts: bool = False
    ) -> "_Skip | None":
        """The scan of an index that has the values: the filter fixes the fields before this one,
        and says nothing else but a range of it. `without_none`: None is not asked for. `counts`: a
        document must have one entry for each of its values, and no more."""
        if self.schema.migration is not None:
            return None
        name, where = self.path.name, self.query.filter
        for index in self.schema.indexes:
            paths = index.encoder.paths
            if index in self.schema.queues or name not in paths:
                continue
            if index.spec.sparse and not all(
                (path == name and without_none)
                or (path in where.fields and where.fields[path].excludes_none)
                for path in paths
            ):
                continue
            access = by_index(index, where.fields, (), is_multi=False, prefixes_max=RANGES_MANY)
            if len(access.equals) != paths.index(name):
                continue
            if not where.without(access.decided).is_empty or not source.is_built(index):
                continue
            needs_single = access.used or (counts and len(paths) > 1)
            if needs_single and source.get(MULTI + index.prefix) is not None:
                continue
            return _Skip(self, source, index, access)
        return None


class _Skip:
    """One scan of the entries of an index."""

    def __init__(
        self, of: FieldValues, source: Source, index: CompiledIndex, access: Access
    ) -> None:
        self.index = index
        self._of = of
        self._source = source
        self._descends = index.encoder.descending[len(access.equals)]
        self._encode = encode_desc if self._descends else encode
        fields = of.query.filter.fields
        bounds = {path: keys_of(fields[path]) for path in access.used}
        # Both ascend. There are no ranges where that of the field is empty.
        heads, ranges = sorted(access.heads(bounds)), access.ranges(bounds)
        self._heads: list[Head] = list(zip(heads, ranges, strict=False))

    def values(self) -> Iterator[Any]:
        """The distinct values; those that are lists or maps perhaps repeated."""
        for head, (low, high) in self._heads:
            scan = entries(self._source, [(low, high)])
            is_open = True
            key: bytes | None = None
            passed = 0
            while is_open:
                is_open = False
                for place, id_bytes in scan:
                    if key is not None and place.startswith(key):
                        passed += 1
                        if passed > STEPS_MAX:
                            scan = entries(self._source, [(end_of(key), high)])
                            is_open = True
                            break
                        continue
                    found = self._elements(head, place, self._live(id_bytes))
                    yield from found
                    key = self._key(head, found)
                    passed = 0

    def all_values(self) -> Iterator[Any]:
        """The values of each document."""
        expires = self._of.schema.expires_at is not None
        for head, (low, high) in self._heads:
            key: bytes | None = None
            value: Any = None
            for place, id_bytes in entries(self._source, [(low, high)]):
                if key is not None and place.startswith(key):
                    if not expires or self._live(id_bytes) is not None:
                        yield value
                    continue
                found = self._elements(head, place, self._live(id_bytes))
                yield from found
                # Documents of None are all read: an empty list has the same entry.
                key = self._key(head, found) if found and found[0] is not None else None
                value = found[0] if found else None

    def ends(self, largest: bool) -> Iterator[Any]:
        """The smallest or largest value behind each head, without None."""
        none = self._encode(None)
        for head, (low, high) in self._heads:
            if self._descends:
                high = min(high, head + none)
            else:
                low = max(low, end_of(head + none))
            reverse = largest != self._descends
            for place, id_bytes in entries(self._source, [(low, high)], reverse=reverse):
                found = self._elements(head, place, self._live(id_bytes))
                if found:
                    yield found[0]
                    break

    # -- inside ------------------------------------------------------------------------------

    def _live(self, id_bytes: bytes) -> bytes | None:
        """The stored document of an entry; None when it has expired. Raises CorruptionError."""
        schema, source = self._of.schema, self._source
        key = schema.prefix + id_bytes
        value = source.get(key)
        if value is None:
            raise orphan(schema, self.index, key)
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        is_live = schema.expires_at is None or expires_us(value) > source.now_us
        return value if is_live else None

    def _elements(self, head: bytes, place: Place, stored: bytes | None) -> list[Any]:
        """The elements of a document that an entry stands for: one, or all that are lists or maps.
        None of a document that has expired, or whose list is empty."""
        if stored is None:
            return []
        elements = self._of.elements(self._of.schema.decode(stored[BODY]))
        found = [value for value in elements if place.startswith(self._encode(value), len(head))]
        return found if found and encode(found[0])[0] >= TAG_LIST else found[:1]

    def _key(self, head: bytes, found: list[Any]) -> bytes | None:
        """The beginning of all entries of the value; None where others have it too."""
        if not found or encode(found[0])[0] >= TAG_LIST:
            return None
        return head + self._encode(found[0])


def _sorted(values: Iterator[Any]) -> list[Any]:
    """The distinct values, ascending; those that no order tells apart as they come."""
    distinct: dict[Any, Any] = {}
    for value in values:
        distinct.setdefault(_identity(value), value)
    return sorted(distinct.values(), key=encode)


def _identity(value: Any) -> Any:
    """Equal for values that a filter takes as equal, and can be a key of a dict."""
    if type(value) is dict:
        return frozenset((name, _identity(item)) for name, item in value.items())
    if type(value) is list:
        return tuple(_identity(item) for item in value)
    return encode(value)
