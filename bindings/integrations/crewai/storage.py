"""A storage of CrewAI's memory on a collection.

    memory = Memory(storage=AmberStorage("memory.amber"))

A document has the fields of a MemoryRecord, and `path`: the scope with a slash at both ends.

Invariants:
- A scope is a path: "/team" has "/team" and "/team/lin", and not "/team2".
- Filters are applied before the limit: a search has `limit` records while more match.
- A call that writes is one commit, all or nothing.
- The first embedding decides the dimension; another one is an EmbeddingDimensionMismatchError.
- Times are UTC without a zone, as CrewAI makes them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from crewai.memory.storage.backend import EmbeddingDimensionMismatchError
from crewai.memory.types import MemoryRecord, ScopeInfo

import amberdb
from amberdb import Database, IndexSpec, Ordered, Vector
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import awaited

OWNER: Final = "amberdb.integrations.crewai"
_TIMES: Final = ("created_at", "last_accessed")
_WITHOUT_EMBEDDING: Final = ["id", *(name for name in MemoryRecord.model_fields if name != "id")]
_WITHOUT_EMBEDDING.remove("embedding")
_INDEXES: Final[Sequence[IndexSpec]] = (Ordered("path"), Ordered("created_at"))


class AmberStorage:
    """Records in a collection of their own. Raises OpenError, CollectionError.

    database    an open Database, or the path of one
    collection  its name
    """

    def __init__(self, database: DatabaseOrPath, *, collection: str = "crewai_memory") -> None:
        self._opened = Opened(database)
        self._name = collection
        with self._opened.closed_on_error() as db:
            self._declare(self._dim() if collection in db.collections() else None)
            self._records = db.collection(collection)

    @property
    def client(self) -> Database:
        """The database of the records."""
        return self._opened.db

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    def save(self, records: list[MemoryRecord]) -> None:
        """Stores records. Raises EmbeddingDimensionMismatchError, InvalidDocumentError."""
        for record in records:
            if record.embedding:
                self._check_dim(len(record.embedding))
        self._records.put_many(map(_stored, records))

    def update(self, record: MemoryRecord) -> None:
        """Replaces the record with this id. Raises as save()."""
        self.save([record])

    def touch_records(self, record_ids: list[str]) -> None:
        """Sets the last access of records to now."""
        with self.client.transaction() as tx:
            for id in record_ids:
                if id in tx[self._name]:
                    tx[self._name].update(id, {"$set": {"last_accessed": datetime.now(UTC)}})

    def search(
        self,
        query_embedding: list[float],
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
    ) -> list[tuple[MemoryRecord, float]]:
        """The nearest records and their cosines, the best first. Raises
        EmbeddingDimensionMismatchError."""
        dim = self._dim()
        if dim is None or limit < 1:
            return []
        if len(query_embedding) != dim:
            raise EmbeddingDimensionMismatchError(dim, len(query_embedding))
        where = _where(scope_prefix, categories, metadata_filter)
        hits = self._records.search(vector=query_embedding, where=where, limit=limit)
        return [(_loaded(hit.document), hit.score) for hit in hits if hit.score >= min_score]

    def delete(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        record_ids: list[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """Deletes the records that meet all conditions, all records without one; how many. An empty
        list of ids is none."""
        where = _where(scope_prefix, categories, metadata_filter)
        if record_ids is not None:
            where["id"] = {"$in": record_ids}
        if older_than is not None:
            where["created_at"] = {"$lt": _aware(older_than)}
        return self._records.delete_many(where)

    def get_record(self, record_id: str) -> MemoryRecord | None:
        """The record with an id, with its embedding."""
        found = self._records.get(record_id)
        return None if found is None else _loaded(found)

    def list_records(
        self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0
    ) -> list[MemoryRecord]:
        """Records of a scope without their embeddings, the newest first."""
        if limit < 1 or offset < 0:
            return []
        with self.client.snapshot() as at:
            where, order = _where(scope_prefix), ["-created_at", "-id"]
            cursor = None
            if offset:
                records = at[self._name]
                skipped = records.find(where, order_by=order, limit=offset, fields=["id"])
                if skipped.cursor is None:
                    return []
                cursor = skipped.cursor
            found = at[self._name].find(
                where, order_by=order, limit=limit, after=cursor, fields=_WITHOUT_EMBEDDING
            )
        return [_loaded(document) for document in found]

    def get_scope_info(self, scope: str) -> ScopeInfo:
        """How many records a scope has, their categories, times, and the scopes below it."""
        where = _where(scope)
        with self.client.snapshot() as at:
            records = at[self._name]
            oldest, newest = (records.min("created_at", where), records.max("created_at", where))
            return ScopeInfo(
                path=_path(scope).rstrip("/") or "/",
                record_count=records.count(where),
                categories=[each for each in records.distinct("categories", where) if each],
                oldest_record=None if oldest is None else _naive(oldest),
                newest_record=None if newest is None else _naive(newest),
                child_scopes=_children(records.distinct("path", where), _path(scope)),
            )

    def list_scopes(self, parent: str = "/") -> list[str]:
        """The scopes one level below a scope."""
        return _children(self._records.distinct("path", _where(parent)), _path(parent))

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        """By category, how many records of a scope have it."""
        counts = self._records.count_by("categories", _where(scope_prefix))
        return {name: count for name, count in counts.items() if name is not None}

    def count(self, scope_prefix: str | None = None) -> int:
        """How many records a scope has, with those below it."""
        return self._records.count(_where(scope_prefix))

    def reset(self, scope_prefix: str | None = None) -> None:
        """Deletes the records of a scope, and without one all: a new embedder may follow then."""
        if _path(scope_prefix) != "/":
            self._records.delete_many(_where(scope_prefix))
            return
        self._records.delete_many({})
        self._declare(None)

    asave = awaited("write", save)
    asearch = awaited("read", search)
    adelete = awaited("write", delete)

    # -- inside ------------------------------------------------------------------------------

    def _dim(self) -> int | None:
        """The numbers of an embedding, None while no record has one."""
        for index in self.client.definition(self._name).indexes:
            if isinstance(index.spec, Vector):
                return index.spec.dim
        return None

    def _check_dim(self, dim: int) -> None:
        stored = self._dim()
        if stored is None:
            self._declare(dim)
        elif stored != dim:
            raise EmbeddingDimensionMismatchError(stored, dim)

    def _declare(self, dim: int | None) -> None:
        vectors = [] if dim is None else [Vector("embedding", dim=dim)]
        self.client.collection(self._name, indexes=[*_INDEXES, *vectors], owner=OWNER)


def _path(scope: str | None) -> str:
    """A scope with a slash at both ends; "/" for all."""
    inside = (scope or "").strip("/")
    return f"/{inside}/" if inside else "/"


def _where(
    scope: str | None = None,
    categories: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[Any, Any]:
    where: dict[Any, Any] = {}
    if _path(scope) != "/":
        where["path"] = {"$prefix": _path(scope)}
    if categories:
        where["categories"] = {"$in": categories}
    for key, value in (metadata or {}).items():
        where["metadata", key] = {"$eq": value}
    return where


def _children(paths: Sequence[str], parent: str) -> list[str]:
    names = {path.removeprefix(parent).partition("/")[0] for path in paths if path != parent}
    return sorted(parent + name for name in names)


def _stored(record: MemoryRecord) -> dict[str, Any]:
    times = {name: _aware(getattr(record, name)) for name in _TIMES}
    document = record.model_dump(mode="json") | times | {"path": _path(record.scope)}
    return document | {"embedding": record.embedding} if record.embedding else document


def _loaded(document: amberdb.Document) -> MemoryRecord:
    fields: dict[str, Any] = {name: document[name] for name in _WITHOUT_EMBEDDING}
    for name in _TIMES:
        fields[name] = _naive(fields[name])
    if "embedding" in document:
        fields["embedding"] = document["embedding"].tolist()
    return MemoryRecord(**fields)


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)
