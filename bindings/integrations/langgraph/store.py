"""AmberStore: LangGraph's long-term store in AmberDB.

    item: namespace [label] path key value created_at updated_at
          vectors                          with an index
          ttl (minutes) expires_at         with a time to live

Invariants:
- A batch reads at one Lsn, before it writes; its writes are one durable commit, of two puts of one
  item the later one.
- An item is found until its time is over, and not after it. A read that refreshes it moves the
  time, and changes nothing else of it.
- The namespaces come from an index; items are not read for them.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from amberdb import Database, Document, Ordered, Vector
from amberdb.integrations.langgraph import filters, ids
from amberdb.integrations.langgraph.embedding import FIELD, Embedder, Vectors, by_text
from amberdb.integrations.langgraph.tables import OWNER
from amberdb.integrations.opened import Closing, DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread

_FIELDS: Final = ["id", "namespace", "key", "value", "created_at", "updated_at", "ttl"]
_PAGE_MAX: Final = 1_000


class AmberStore(Closing, BaseStore):
    """A store: `builder.compile(store=AmberStore("agent.amber"))`.

        store.put(("users", "lin"), "diet", {"text": "Lin is a vegan."})
        store.search(("users", "lin"), query="what can I cook?")

    db     an open Database, or the path of one, which close() closes
    index  {"dims": 384, "embed": function, "fields": ["text"]}: vectors for search(query=);
           "distance_type" is "cosine", "l2" or "inner_product"
    ttl    {"default_ttl": minutes, "refresh_on_read": True}
    name   the name of its collection

    Each method has a twin for event loops, which runs it in a thread. In the event loop that the
    store was made in, the others raise InvalidStateError. Raises OpenError for a path,
    CollectionError where a program has a collection of this name, ValueError.
    """

    supports_ttl = True

    def __init__(
        self,
        db: DatabaseOrPath,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        name: str = "langgraph.item",
    ) -> None:
        super().__init__()
        self.ttl_config = ttl
        self.index_config = index
        self._embedder = None if index is None else Embedder(index)
        self.embeddings = None if self._embedder is None else self._embedder.embeddings
        self._loop = _running_loop()
        self._name = name
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._declare(opened)

    def _declare(self, db: Database) -> None:
        ordered = [Ordered("path"), Ordered("updated_at")]
        indexes: list[Ordered | Vector] | None = [*ordered]
        if self._embedder is not None:
            indexes = [*ordered, self._embedder.spec]
        elif self._name in db.collections():
            indexes = None  # a store without an index leaves that of another one in place
        self._items = db.collection(
            self._name, indexes=indexes, expires_at="expires_at", owner=OWNER
        )

    def sweep_ttl(self) -> int:
        """Removes the items whose time is over, which are hidden already; returns how many.
        AmberDB does the same in the background."""
        return self._items.expire()

    # -- batches -----------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Reads, then writes. Raises InvalidNamespaceError, ValueError, InvalidDocumentError."""
        loop = _running_loop()
        if loop is not None and loop is self._loop:
            raise asyncio.InvalidStateError(
                "this would stop the event loop that the store was made in: "
                "await aget(), aput(), asearch(), adelete(), alist_namespaces() or abatch()"
            )
        ops = _validated(ops)
        vectors: Vectors = {}
        if self._embedder is not None and (texts := self._embedder.to_embed(ops)):
            vectors = by_text(texts, self._embedder.embeddings.embed_documents(texts))
        results, touched = self._read(ops, vectors)
        if touched or _puts(ops):
            self._write(_puts(ops), vectors, touched)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """batch() in a thread, with the embedder's own function for event loops."""
        ops = _validated(ops)
        vectors: Vectors = {}
        if self._embedder is not None and (texts := self._embedder.to_embed(ops)):
            vectors = by_text(texts, await self._embedder.embeddings.aembed_documents(texts))
        results, touched = await in_thread("read", self._read, ops, vectors)
        if touched or _puts(ops):
            await in_thread("write", self._write, _puts(ops), vectors, touched)
        return results

    def _read(self, ops: Sequence[Op], vectors: Vectors) -> tuple[list[Result], dict[str, float]]:
        """The results of the reads, and the minutes that items live from now, by their ids."""
        results: list[Result] = [None] * len(ops)
        reads = [number for number, op in enumerate(ops) if not isinstance(op, PutOp)]
        touched: dict[str, float] = {}
        if len(reads) == 1:
            results[reads[0]] = _read(self._items, ops[reads[0]], vectors, touched)
        elif reads:
            with self._opened.db.snapshot() as at:
                for number in reads:
                    results[number] = _read(at[self._name], ops[number], vectors, touched)
        return results, touched

    def _write(self, puts: Sequence[PutOp], vectors: Vectors, touched: dict[str, float]) -> None:
        now = datetime.now(UTC)
        by_ttl: dict[float, list[str]] = {}
        for id, ttl in touched.items():
            by_ttl.setdefault(ttl, []).append(id)
        stored = {ids.item_id(op.namespace, str(op.key)): op for op in puts}
        with self._opened.db.transaction() as tx:
            items = tx[self._name]
            for ttl, touched_ids in by_ttl.items():
                items.touch(touched_ids, now + timedelta(minutes=ttl))
            items.delete_many(ids=[id for id, op in stored.items() if op.value is None])
            new = {id: op for id, op in stored.items() if op.value is not None}
            rows: list[Document] = []
            for (id, op), old in zip(new.items(), items.get_many(list(new)), strict=True):
                row = self._row(id, op, vectors, now)
                rows.append(row if old is None else {**row, "created_at": old["created_at"]})
            items.put_many(rows)

    def _row(self, id: str, op: PutOp, vectors: Vectors, now: datetime) -> Document:
        row: Document = {
            "id": id,
            "namespace": list(op.namespace),
            "path": ids.path(op.namespace),
            "key": str(op.key),
            "value": dict(op.value or {}),
            "created_at": now,
            "updated_at": now,
        }
        if op.ttl is not None:
            row |= {"ttl": op.ttl, "expires_at": now + timedelta(minutes=op.ttl)}
        if self._embedder is not None:
            texts = self._embedder.texts(op)
            row[FIELD] = [vectors[text] for text in texts if text in vectors]
        return row


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _validated(ops: Iterable[Op]) -> list[Op]:
    ops = list(ops)
    for op in ops:
        if not isinstance(cast(object, op), GetOp | SearchOp | ListNamespacesOp | PutOp):
            raise ValueError(f"Unknown operation type: {type(op)}")
        validate_op_namespace(op)
    return ops


def _puts(ops: Iterable[Op]) -> list[PutOp]:
    return [op for op in ops if isinstance(op, PutOp)]


def _read(items: Any, op: Op, vectors: Vectors, touched: dict[str, float]) -> Result:
    if isinstance(op, ListNamespacesOp):
        return _namespaces(items, op)
    rows: list[tuple[Document, float | None]]
    if isinstance(op, GetOp):
        row = items.get(ids.item_id(op.namespace, str(op.key)))
        rows = [] if row is None else [(row, None)]
    else:
        rows = _search(items, cast(SearchOp, op), vectors)
    if cast(GetOp | SearchOp, op).refresh_ttl:
        touched |= {row["id"]: row["ttl"] for row, _ in rows if row.get("ttl") is not None}
    if isinstance(op, GetOp):
        return Item(**_place(rows[0][0])) if rows else None
    return [SearchItem(**_place(row), score=score) for row, score in rows]


def _place(row: Document) -> dict[str, Any]:
    return {
        "namespace": tuple(row["namespace"]),
        "key": row["key"],
        "value": row["value"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _search(items: Any, op: SearchOp, vectors: Vectors) -> list[tuple[Document, float | None]]:
    where = filters.where(op.filter)
    labels = op.namespace_prefix
    if labels:
        where["id"] = {"$prefix": ids.label_prefix(labels)}
        if not ids.is_exact(labels):
            where["path"] = {"$prefix": ids.path(labels)}
    wanted = op.offset + op.limit if op.limit > 0 else 0
    vector = vectors.get(op.query) if op.query else None
    found: list[tuple[Document, float | None]] = []
    size = wanted
    after: str | None = None
    while len(found) < wanted:
        rows, after = _page(items, where, vector, min(size, _PAGE_MAX), after)
        found += [row for row in rows if filters.matches(row[0]["value"], op.filter)]
        size *= 2
        if after is None:
            break
    return found[op.offset : wanted]


def _page(
    items: Any, where: Any, vector: Sequence[float] | None, limit: int, after: str | None
) -> tuple[list[tuple[Document, float | None]], str | None]:
    """The newest items, or those that are nearest to a vector."""
    if vector is None:
        page = items.find(where, order_by="-updated_at", limit=limit, after=after, fields=_FIELDS)
        return [(row, None) for row in page], page.cursor
    hits = items.search(vector=vector, where=where, limit=limit, after=after, fields=_FIELDS)
    return [(hit.document, hit.score) for hit in hits], hits.cursor


def _namespaces(items: Any, op: ListNamespacesOp) -> list[tuple[str, ...]]:
    conditions = op.match_conditions or ()
    where: dict[str, Any] = {}
    for condition in conditions:
        if condition.match_type == "prefix" and "*" not in condition.path:
            where = {"path": {"$prefix": ids.path(condition.path)}}
    found = map(ids.labels_of, items.distinct("path", where))
    matching = [labels for labels in found if all(_matches(labels, by) for by in conditions)]
    if op.max_depth is not None:
        matching = sorted({labels[: op.max_depth] for labels in matching})
    return matching[op.offset : op.offset + op.limit]


def _matches(labels: Sequence[str], condition: MatchCondition) -> bool:
    wanted = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(f"Unsupported match type: {condition.match_type}")
    if len(labels) < len(wanted):
        return False
    if condition.match_type == "prefix":
        part = labels[: len(wanted)]
    else:
        part = labels[len(labels) - len(wanted) :]
    return all(label in ("*", have) for label, have in zip(wanted, part, strict=True))
