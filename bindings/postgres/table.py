"""The tables of one collection, and the SQL that reads and writes them.

    d<n>  key bytea       the UTF-8 of the id: bytes sort as they do in a directory
          rowid, version, created_us, updated_us, expires_us      as in document_format.py
          sides           the number of its rows in e<n>
          document jsonb  see json_text.py
          k<keyspace>     for each Ordered or Unique index, and for the times of expiry, the key of
                          the document's entry without its prefix: fields and rowid
    e<n>  entry bytea, key bytea, value bytea      entries of lists, and of fields that are cut:
                          the whole key and value
    u<n>  value bytea, key bytea                   the values of Unique indexes, by document;
                          a value is checked when its transaction commits
    t<keyspace>, ...      of each Text index: search/text_table.py
    write<n>  a function that writes one document: statement/functions.py
    v<keyspace>           the vectors of a Vector index: search/vector_table.py

Invariants:
- Keys are those that the embedded engine writes, so they sort alike in both.
- A document has an entry either in its column, or in e<n>.
- Names are checked or numbers, so that no statement has anything of a user in it.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from hashlib import blake2b, sha256
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias, cast, final

from amberdb._types import Document
from amberdb.engine.schema.codec import STORED, Extension, encode, vector_array
from amberdb.engine.schema.document_format import StoredDocument, pack
from amberdb.engine.schema.keyspace import META, Effects
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.schema.vector_block import FIELDS_MAX, StoredVector, missing_vector, place_of
from amberdb.index.ordered.keys import CUT_BYTES, KEYSPACE_BYTES, ROWID_BYTES
from amberdb.postgres.json_text import Beside, dumps, dumps_binary, loads
from amberdb.postgres.search.text_table import TextTable
from amberdb.postgres.search.vector_table import VectorTable

HEAD: Final = (
    "d.key, d.version, d.created_us, d.updated_us, d.expires_us, d.rowid, d.sides, d.document"
)
KEY, ROWID, SIDES, PLACE, VALUE = 0, 5, 6, 8, 9
"""Positions in a row of HEAD, and behind it in that of a scan. Rows are read in binary."""
NOW_US: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The time of the server."""
SIDE: Final = META + b"x"
"""+ keyspace: an index has, or once had, an entry in e<n>; beside the marks of ordered_index.py."""
_FIXED: Final = "key, rowid, version, created_us, updated_us, expires_us, sides, document"
_FIXED_COUNT: Final = 8
_NO_MARKS: Final[Set[bytes]] = frozenset()
COPIED: Final = ("bytea", "int8", "int8", "int8", "int8", "int8", "int4", "bytea")


class Row(NamedTuple):
    """What is stored of a document."""

    fixed: list[Any]
    """The columns in front of the document: the key, and numbers."""
    document: Document
    """Whole, for the search indexes."""
    stored: Document
    """Without the vectors that tables have. Its text is made when it is sent, beside a server that
    is at work with others."""
    places: list[bytes | None]
    """The columns of indexes."""
    entries: Sequence[tuple[bytes, bytes]]
    """Of e<n>."""
    uniques: Sequence[bytes]
    """Of u<n>."""
    marks: Set[bytes]
    size_bytes: int
    """Of the whole document, as the engine encodes it."""

    @property
    def key(self) -> bytes:
        """The key of the document in its table."""
        return cast(bytes, self.fixed[0])

    @property
    def rowid(self) -> int:
        """The rowid, by which search indexes name the document."""
        return cast(int, self.fixed[1])

    @property
    def inserted(self) -> list[Any]:
        """The values of Table.insert."""
        return [*self.fixed, dumps(self.stored), *self.places]

    @property
    def updated(self) -> list[Any]:
        """The values of Table.update."""
        return [*self.fixed[1:], dumps(self.stored), *self.places, self.key]

    @property
    def copied(self) -> list[Any]:
        """The values of Table.copy, of the types COPIED, and bytea behind them."""
        return [*self.fixed, dumps_binary(self.stored), *self.places]


SearchTable: TypeAlias = TextTable | VectorTable


@final
class Table:
    """The tables of one collection as it is declared."""

    __slots__ = (
        "columns",
        "copy",
        "delete",
        "descending",
        "entries",
        "fields",
        "function",
        "get",
        "insert",
        "move_entries",
        "name",
        "point",
        "point_locked",
        "points",
        "points_locked",
        "schema",
        "searched",
        "texts",
        "update",
        "values",
        "vectors",
        "write",
    )

    def __init__(self, database: str, schema: Schema) -> None:
        self.schema = schema
        number = schema.definition.number
        self.name = f'"{database}".d{number}'
        self.entries = f'"{database}".e{number}'
        self.values = f'"{database}".u{number}'
        self.texts = {
            index.prefix: TextTable(database, index)
            for index in schema.row_indexes
            if index.is_text
        }
        """By the prefix of the Text index."""
        self.vectors = {
            index.vector.field: VectorTable(database, index)
            for index in schema.row_indexes
            if not index.is_text
        }
        """By the field of a Vector index."""
        self.searched: list[SearchTable] = [*self.texts.values(), *self.vectors.values()]
        """The tables of the search indexes."""
        prefixes = [index.prefix for index in schema.indexes]
        if schema.expires_at is not None:
            prefixes.append(schema.expiry_prefix)
        self.columns = {prefix: f"k{int.from_bytes(prefix)}" for prefix in prefixes}
        """By the prefix of the index."""
        self.fields: dict[str, tuple[str, ...]] = {"key": ("id",)}
        """Of the index of a column."""
        for index in schema.indexes:
            self.fields[self.columns[index.prefix]] = index.encoder.paths
        self.descending = {self.columns[index.prefix] for index in schema.indexes if index.descends}
        """Columns whose rowids are inverted."""
        self.function = f'"{database}".write{number}'
        """Writes one document: statement/functions.py."""
        marks = ["%s"] * (10 + len(self.columns))
        marks[9] = "%s::jsonb"
        self.write = f"SELECT {self.function}({', '.join(marks)})"
        names = [*_FIXED.split(", "), *self.columns.values()]
        marks = ["%s"] * len(names)
        marks[_FIXED_COUNT - 1] = "%s::jsonb"
        self.copy = f"COPY {self.name} ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
        """Its values are Row.copied."""
        self.insert = f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(marks)})"
        sets = [f"{name} = {mark}" for name, mark in zip(names[1:], marks[1:], strict=True)]
        self.update = f"UPDATE {self.name} SET {', '.join(sets)} WHERE key = %s"
        """Its values are Row.updated."""
        self.point = f"SELECT {HEAD} FROM {self.name} d WHERE d.key = %s"
        """Reads one document by its key."""
        beside = "".join(f", {each.joined()}" for each in self.vectors.values())
        now = "0" if schema.expires_at is None else NOW_US
        self.get = (
            f"SELECT f.version, {now}, d.expires_us, d.document{beside} "
            f'FROM "{database}".fence f LEFT JOIN {self.name} d ON d.key = %s'
        )
        """Reads the version of the catalog, the time if documents expire, and one document with
        its vectors for whole()."""
        self.points = (
            f"SELECT {HEAD} FROM {self.name} d WHERE d.key = ANY(%s::bytea[]) ORDER BY d.key"
        )
        """Reads documents by their keys, given as array_of()."""
        self.point_locked = self.point + _for_update(True)
        self.points_locked = self.points + _for_update(True)
        end = f"length(entry) - {ROWID_BYTES}"
        self.move_entries = (
            f"UPDATE {self.entries} SET entry = substr(entry, 1, {end}) || "
            f"CASE substr(entry, {end} + 1) WHEN %s THEN %s::bytea ELSE %s END WHERE key = %s"
        )
        """Gives the entries of a document in e<n> another rowid: of the rowid before, of the new
        one in ascending and in descending indexes, and the document's key."""
        self.delete = f"DELETE FROM {self.name} WHERE key = ANY(%s)"

    def text(self, index: RowIndex) -> TextTable:
        """The tables of a Text index."""
        return self.texts[index.prefix]

    def created(self) -> Iterator[str]:
        """The statements that create the tables, without columns of indexes."""
        yield (
            f"CREATE TABLE {self.name} (key bytea PRIMARY KEY, rowid bigint NOT NULL, "
            "version bigint NOT NULL, created_us bigint NOT NULL, updated_us bigint NOT NULL, "
            "expires_us bigint NOT NULL, sides int NOT NULL, document jsonb NOT NULL)"
        )
        yield (
            f"CREATE TABLE {self.entries} (entry bytea PRIMARY KEY, key bytea NOT NULL, "
            "value bytea NOT NULL)"
        )
        yield f"CREATE INDEX ON {self.entries} (key)"
        yield (
            f"CREATE TABLE {self.values} (value bytea, key bytea NOT NULL, "
            "PRIMARY KEY (value) DEFERRABLE INITIALLY DEFERRED)"
        )
        yield f"CREATE INDEX ON {self.values} (key)"

    def rowids_indexed(self) -> str:
        """The statement that makes documents found by their rowids, as search indexes name them."""
        name = f"d{self.schema.definition.number}_rowid"
        return f"CREATE INDEX IF NOT EXISTS {name} ON {self.name} (rowid)"

    def dropped(self) -> str:
        """The statement that drops the tables."""
        return f"DROP TABLE {', '.join(self.names)}"

    @property
    def names(self) -> list[str]:
        """Of all its tables."""
        beside = [name for index in self.searched for name in index.names]
        return [self.name, self.entries, self.values, *beside]

    @property
    def is_single(self) -> bool:
        """Whether a document may have nothing beside its row but rows of e<n>, which it counts."""
        return not (self.schema.unique_indexes or self.schema.row_indexes)

    def single(self, new: Prepared, marks: frozenset[bytes]) -> list[Any] | None:
        """The last arguments of write<n>, from the key on. None when more than a row is stored of
        the document, or more than these marks."""
        row = self.row(new, 0, 0, 0, 0, 0)
        if row.entries or row.uniques or not row.marks <= marks:
            return None
        bare = [None if place is None else place[:-ROWID_BYTES] for place in row.places]
        return [row.key, new.expires_us, dumps(row.stored), *bare]

    def row(
        self,
        new: Prepared,
        version: int,
        created_us: int,
        updated_us: int,
        rowid: int,
        now_us: int,
    ) -> Row:
        """What is stored of a document; one that has expired has no unique value. Raises
        InvalidDocumentError."""
        schema, id_bytes = self.schema, new.id_bytes
        effects: Effects = {}
        plan = schema.entry_plan
        schema.add_entries(effects, plan, new.document, id_bytes, rowid, new.expires_us)
        places = {
            key[:KEYSPACE_BYTES]: key[KEYSPACE_BYTES:]
            for key, value in effects.items()
            if value == id_bytes
        }
        marks: Set[bytes] = _NO_MARKS
        entries: Sequence[tuple[bytes, bytes]] = ()
        if len(places) < len(effects) or META in places:
            document = new.document
            lists = {index.prefix for index in plan.indexes if index.encoder.is_multi(document)}
            places, entries, marks = _sorted_out(effects, id_bytes, lists)
        uniques: Sequence[bytes] = ()
        if schema.unique_indexes and new.expires_us > now_us:
            uniques = self._uniques(new.document)
        fixed = [id_bytes, rowid, version, created_us, updated_us, new.expires_us, len(entries)]
        columns = list(map(places.get, self.columns))
        whole = stored = new.document
        if self.vectors:
            stored = self._split(whole)
        size_bytes = len(new.body)
        return Row(fixed, whole, stored, columns, entries, uniques, marks, size_bytes)

    def rebuilt(self, stored: StoredDocument, document: Document, now_us: int) -> Row:
        """What is to be stored of a document that is there, whole. Raises InvalidDocumentError for
        one that has no key in an index."""
        id: str = document["id"]
        id_bytes = id.encode()
        key, body = self.schema.prefix + id_bytes, stored.body
        new = Prepared(id, id_bytes, key, document, body, stored.expires_us, fresh=False)
        times = stored.created_us, stored.updated_us
        return self.row(new, stored.version, *times, stored.rowid, now_us)

    def value(self, row: tuple[Any, ...]) -> bytes:
        """A row of HEAD in the format of stored documents: its body as the server has it, for
        JsonSchema; of a document with vectors encoded anew, with their places. Raises
        CorruptionError."""
        id_bytes, version, created_us, updated_us, expires_us, rowid, _, body = row[:PLACE]
        if self.schema.vectors:
            body = encode(self._placed(loads(body), rowid))
        key, times = self.schema.prefix + id_bytes, (created_us, updated_us, expires_us)
        return pack(key, version, *times, rowid, body)

    def _placed(self, document: Document, rowid: int) -> Document:
        """The document with the places of its vectors."""
        schema = self.schema
        for number, name in enumerate(schema.vectors):
            value = document.get(name)
            if type(value) is Beside:
                place = place_of(
                    schema.vector_prefix, number, value.dim, rowid, several=value.several
                )
                document[name] = Extension(STORED, place)
        return document

    def whole(self, body: bytes, beside: Sequence[Any]) -> Document:
        """The document with its vectors as `get` reads them. Raises CorruptionError."""
        document = loads(body)
        for (name, vectors), sent in zip(self.vectors.items(), beside, strict=True):
            value = document.get(name)
            if type(value) is Beside:
                numbers = vectors.numbers(sent).tobytes()
                document[name] = vector_array(numbers, value.dim if value.several else 0)
        return document

    def vector_table(self, place: StoredVector) -> tuple[VectorTable, int]:
        """The table that has the vectors at a place, and the rowid. Raises CorruptionError."""
        number, rowid = place.row
        table = self.vectors.get(list(self.schema.vectors)[number])
        if table is None:
            raise missing_vector(place)
        return table, rowid

    def points_by_rowid(self, *, narrows: bool, locks: bool) -> str:
        """The statement that reads documents by their rowids."""
        return (
            f"SELECT {HEAD} FROM {self.name} d WHERE d.rowid = ANY(%s::bigint[])"
            f"{_narrowed(narrows)} ORDER BY d.rowid{_for_update(locks)}"
        )

    def scan(
        self, column: str, *, has_high: bool, reverse: bool, narrows: bool, locks: bool, limit: int
    ) -> str:
        """The statement that reads the documents in a range of a column."""
        return (
            f"SELECT {HEAD}, d.{column} FROM {self.name} d WHERE "
            + _range(f"d.{column}", has_high, narrows)
            + _ordered(f"d.{column}", reverse, limit)
            + _for_update(locks)
        )

    def side_scan(
        self, *, has_high: bool, reverse: bool, narrows: bool, locks: bool, limit: int
    ) -> str:
        """The statement that reads the entries in a range of e<n>, with their documents."""
        return (
            f"SELECT {HEAD}, e.entry, e.value FROM {self.entries} e JOIN {self.name} d "
            "ON d.key = e.key WHERE "
            + _range("e.entry", has_high, narrows)
            + _ordered("e.entry", reverse, limit)
            + (" FOR UPDATE OF d, e" if locks else "")
        )

    def keys(self, column: str, *, has_high: bool, narrows: bool, limit: int) -> str:
        """The statement that reads the keys in a range of a column."""
        return (
            f"SELECT d.{column} FROM {self.name} d WHERE "
            + _range(f"d.{column}", has_high, narrows)
            + _ordered(f"d.{column}", False, limit)
        )

    def side_keys(self, *, has_high: bool, narrows: bool, limit: int) -> str:
        """The statement that reads the keys in a range of e<n>."""
        joined = f" JOIN {self.name} d ON d.key = e.key" if narrows else ""
        return (
            f"SELECT e.entry FROM {self.entries} e{joined} WHERE "
            + _range("e.entry", has_high, narrows)
            + _ordered("e.entry", False, limit)
        )

    # -- inside ------------------------------------------------------------------------------

    def _uniques(self, document: Document) -> list[bytes]:
        """The values of a document in Unique indexes, each once."""
        values = {
            index.prefix + _short(fields): None
            for index in self.schema.unique_indexes
            for fields in index.encoder.unique_keys(document)
        }
        return list(values)

    def _split(self, document: Document) -> Document:
        """The document without the vectors that tables have."""
        for name in islice(self.schema.vectors, FIELDS_MAX):
            table = self.vectors.get(name)
            value: Any = document.get(name)
            # A list of numbers is older than the index, and stays.
            if table and hasattr(value, "dtype") and table.spec.vectors(document) is not None:
                document = {**document, name: Beside(table.spec.dim, value.ndim > 1)}
        return document


def _sorted_out(
    effects: Effects, id_bytes: bytes, lists: Set[bytes]
) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]], set[bytes]]:
    """Of the entries of a document, and their marks: what columns have, by keyspace, the rows of
    e<n>, and all marks. Those of `lists`, keyspaces of indexes of a list, are in e<n>, also one
    alone: a transaction that waits for the document finds the entry of a value that stays where it
    was."""
    marks: set[bytes] = set()
    places: dict[bytes, bytes] = {}
    entries: list[tuple[bytes, bytes]] = []
    for key, value in effects.items():
        assert value is not None
        prefix = key[:KEYSPACE_BYTES]
        if prefix == META:
            marks.add(key)
        elif value == id_bytes and prefix not in lists:
            places[prefix] = key[KEYSPACE_BYTES:]
        else:
            entries.append((key, value))
            marks.add(SIDE + prefix)
    return places, entries, marks


def expiry_bound(schema: Schema, now_us: int) -> bytes:
    """What the column of expiry has of documents that have expired is below it."""
    return schema.expiry_bound(now_us)[KEYSPACE_BYTES:]


def array_of(keys: Iterable[bytes]) -> str:
    """An array of bytea as its text, which is made in a third of the driver's time."""
    return "{" + ",".join([f'"\\\\x{key.hex()}"' for key in keys]) + "}"


def name_lock(table: Table, key: bytes) -> int:
    """The number of the lock of an id."""
    return lock_number(table.name.encode() + key)


def lock_number(name: bytes) -> int:
    """The number of an advisory lock."""
    return int.from_bytes(blake2b(name, digest_size=8).digest(), signed=True)


def _short(fields: bytes) -> bytes:
    """The value of a Unique index, of a length that an index of the server takes."""
    return fields if len(fields) <= CUT_BYTES else fields[:CUT_BYTES] + sha256(fields).digest()


def _range(column: str, has_high: bool, narrows: bool) -> str:
    high = f" AND {column} < %s" if has_high else ""
    return f"{column} >= %s{high}{_narrowed(narrows)}"


def _narrowed(narrows: bool) -> str:
    return " AND d.document @@ %s::jsonpath" if narrows else ""


def _ordered(column: str, reverse: bool, limit: int) -> str:
    return f" ORDER BY {column}{' DESC' if reverse else ''} LIMIT {limit}"


def _for_update(locks: bool) -> str:
    return " FOR UPDATE OF d" if locks else ""
