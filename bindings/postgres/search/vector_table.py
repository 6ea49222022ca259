"""The vectors of one Vector index: their table, and the graph over it.

    v<keyspace>  rowid bigint, ordinal int       the document, and which of its vectors it is
                 vector vector(dim)              float32, as it was put

Invariants:
- A document whose vectors change gets another rowid, so the vectors of a rowid never change while
  anybody reads or writes beside it. A migration keeps rowids: it has the tables alone.
- Every vector of the index is here; those of other arrays of a document are in its jsonb.
- The server's graph proposes rows. It has no more than GRAPH_DIM_MAX dimensions.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, final

import msgspec
from psycopg import errors

from amberdb._errors import FormatError, NotSupportedHereError, ServerAccessError
from amberdb._types import Document
from amberdb.engine.schema.search_index import RowIndex
from amberdb.index.vector.coercion import Metric
from amberdb.postgres.connections import Connection, execute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DIM_MAX: Final = 16_000
"""Of the type `vector`."""
GRAPH_DIM_MAX: Final = 2_000
OPERATORS: Final[dict[Metric, str]] = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}
"""By metric the operator whose value is smaller for a nearer vector."""
_M_MAX: Final = 100
_EF_CONSTRUCTION_MAX: Final = 1000
VERSION_MIN: Final = (0, 8)
"""Of the extension: the first that searches a graph until enough rows are found."""
_EXTENSION_LOCK: Final = int.from_bytes(b"amberdbv", signed=True)
_HEAD_BYTES: Final = 4
"""In front of the numbers of a vector that the server sends."""
_encode = msgspec.json.Encoder().encode


@final
class VectorTable:
    """The table of a Vector index."""

    __slots__ = ("_changed", "name", "spec")

    def __init__(self, database: str, index: RowIndex) -> None:
        self.spec = index.vector
        if self.spec.dim > DIM_MAX:
            raise NotSupportedHereError(
                f"{self.spec.name} has dim={self.spec.dim}: on PostgreSQL a vector has at most "
                f"{DIM_MAX} numbers"
            )
        self.name = name = f'"{database}".v{index.number}'
        self._changed = (
            f"WITH gone AS (DELETE FROM {name} WHERE rowid = ANY(%s)) "
            f"INSERT INTO {name} SELECT r, o, v::vector FROM "
            "unnest(%s::bigint[], %s::int[], %s::text[]) AS x (r, o, v)"
        )

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def operator(self) -> str:
        return OPERATORS[self.spec.metric]

    @property
    def has_graph(self) -> bool:
        return self.spec.dim <= GRAPH_DIM_MAX

    def created(self) -> Iterator[str]:
        """The statement that creates the table."""
        yield (
            f"CREATE TABLE {self.name} (rowid bigint, ordinal int, "
            f"vector vector({self.spec.dim}) NOT NULL, PRIMARY KEY (rowid, ordinal))"
        )

    def indexed(self) -> Iterator[str]:
        """The statement that creates the graph."""
        if not self.has_graph:
            return
        spec = self.spec
        m = min(spec.m, _M_MAX)
        ef_construction = min(max(spec.ef_construction, 2 * m), _EF_CONSTRUCTION_MAX)
        yield (
            f"CREATE INDEX ON {self.name} USING hnsw (vector vector_{spec.metric}_ops) "
            f"WITH (m = {m}, ef_construction = {ef_construction})"
        )

    def replace(
        self, connection: Connection, gone: Sequence[int], new: Iterable[tuple[int, Document]]
    ) -> None:
        """Removes the vectors of some rowids, which need not be there, and adds those of
        documents."""
        found = [(rowid, self.spec.vectors(document)) for rowid, document in new]
        rows = [
            (rowid, ordinal, text_of(vector))
            for rowid, vectors in found
            if vectors is not None
            for ordinal, vector in enumerate(vectors)
        ]
        if gone or rows:
            columns = [[row[place] for row in rows] for place in range(3)]
            execute(connection, self._changed, [list(gone), *columns])

    def counted(self, where: str, at_most: int) -> str:
        """The statement that counts the vectors of the rows that meet a condition, up to a
        number."""
        return f"SELECT count(*) FROM (SELECT FROM {self.name} WHERE {where} LIMIT {at_most}) AS x"

    def all(self, where: str) -> str:
        """The statement that reads the vectors of the rows that meet a condition."""
        return f"SELECT rowid, vector FROM {self.name} WHERE {where} ORDER BY rowid"

    def nearest(self, where: str, limit: int) -> str:
        """The statement that reads the vectors of the nearest rows. It compares all of them, since
        no graph has the order of a sum."""
        far, order = f"vector {self.operator} %s::vector", f"rowid DESC LIMIT {limit}"
        if not self.spec.multi:
            near = (
                f"SELECT rowid FROM (SELECT rowid, ({far}) + 0 AS far FROM {self.name} "
                f"WHERE {where}) AS x ORDER BY far, {order}"
            )
        else:
            near = (
                "SELECT rowid FROM (SELECT rowid, far, row_number() OVER (PARTITION BY rowid "
                f"ORDER BY far) AS place FROM (SELECT rowid, {far} AS far FROM {self.name} "
                f"WHERE {where}) AS x) AS y WHERE place <= {self.spec.mean_of} GROUP BY rowid "
                f"ORDER BY avg(far), {order}"
            )
        return (
            f"WITH near AS MATERIALIZED ({near}) SELECT v.rowid, v.vector FROM near "
            f"JOIN {self.name} v ON v.rowid = near.rowid ORDER BY v.rowid"
        )

    def proposed(self, where: str, limit: int) -> str:
        """The statement that reads the vectors that the graph proposes."""
        return (
            f"WITH near AS MATERIALIZED (SELECT rowid, vector FROM {self.name} WHERE {where} "
            f"ORDER BY vector {self.operator} %s::vector LIMIT {limit}) "
            "SELECT rowid, vector FROM near ORDER BY rowid"
        )

    def joined(self) -> str:
        """An expression: all vectors of the document `d`, as the server sends them."""
        return f"(SELECT {_SENT} FROM {self.name} WHERE rowid = d.rowid)"

    @property
    def read(self) -> str:
        """The statement that reads, by rowid, all vectors of documents, as numbers() takes them."""
        return f"SELECT rowid, {_SENT} FROM {self.name} WHERE rowid = ANY(%s) GROUP BY rowid"

    def numbers(self, sent: bytes) -> "Vectors":
        """float32[n, dim]: what the server has sent of n vectors."""
        import numpy as np

        kind = np.dtype([("head", f"V{_HEAD_BYTES}"), ("numbers", ">f4", (self.spec.dim,))])
        vectors: Vectors = np.frombuffer(sent, kind)["numbers"].astype("<f4")
        return vectors


_SENT: Final = "string_agg(vector_send(vector), ''::bytea ORDER BY ordinal)"


def text_of(vector: "Vectors") -> str:
    """A vector as the server reads it: a number has the digits by which it is read back."""
    return _encode(vector.tolist()).decode()


def require_vectors(connection: Connection) -> None:
    """Creates the extension that has the type `vector`, if it is missing. Raises
    ServerAccessError, FormatError, NotSupportedHereError."""
    execute(connection, f"SELECT pg_advisory_xact_lock({_EXTENSION_LOCK})")
    try:
        execute(connection, "CREATE EXTENSION IF NOT EXISTS vector")
    except errors.InsufficientPrivilege:
        raise ServerAccessError(
            "a Vector index needs the extension vector (pgvector), which this user may not "
            "create: let an administrator run CREATE EXTENSION vector in this database"
        ) from None
    except (errors.FeatureNotSupported, errors.UndefinedFile):
        raise NotSupportedHereError(
            "a Vector index needs the extension vector (pgvector), which the server does not "
            "have: install pgvector 0.8 or newer there, as the package postgresql-<version>-"
            "pgvector, and declare the index again"
        ) from None
    row = execute(
        connection,
        "SELECT extversion, to_regtype('vector') IS NOT NULL FROM pg_extension "
        "WHERE extname = 'vector'",
    ).fetchone()
    assert row is not None
    version, is_found = row
    if tuple(map(int, version.split(".")[:2])) < VERSION_MIN:
        raise FormatError(
            f"the extension vector (pgvector) has version {version} in this database: use 0.8 or "
            "a newer one, and run ALTER EXTENSION vector UPDATE",
            version=version,
        )
    if not is_found:
        raise ServerAccessError(
            "the extension vector (pgvector) is in a schema that is not in search_path: add it, "
            "as ALTER ROLE ... SET search_path does"
        )
