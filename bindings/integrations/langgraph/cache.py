"""AmberCache: LangGraph's cache of the results of nodes, in AmberDB.

Invariants:
- An entry is found until its time is over, and not after it; AmberDB removes it then.
- Writes are not synced to disk: what a power failure takes is computed again.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT
from langgraph.checkpoint.serde.base import SerializerProtocol

from amberdb.integrations.langgraph.ids import item_id, label_prefix
from amberdb.integrations.langgraph.tables import OWNER
from amberdb.integrations.opened import Closing, DatabaseOrPath, Opened
from amberdb.integrations.threads import twin


class AmberCache(Closing, BaseCache[ValueT]):
    """A cache: `builder.compile(cache=AmberCache("agent.amber"))`.

    db     an open Database, or the path of one, which close() closes
    name   the name of its collection
    serde  the serializer of values, LangGraph's own by default

    Each method has a twin for event loops, which runs it in a thread. Raises OpenError for a path,
    CollectionError where a program has a collection of this name.
    """

    def __init__(
        self,
        db: DatabaseOrPath,
        *,
        name: str = "langgraph.cache",
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._entries = opened.collection(
                name, indexes=[], expires_at="expires_at", owner=OWNER
            )

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """The values of the keys that have one."""
        ids = {item_id(namespace, key): (tuple(namespace), key) for namespace, key in keys}
        return {
            ids[entry["id"]]: self.serde.loads_typed((entry["type"], entry["data"]))
            for entry in self._entries.get_many(list(ids))
            if entry is not None
        }

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Stores values, with the seconds after which each is over, in one commit."""
        now = datetime.now(UTC)
        entries: list[dict[str, object]] = []
        for (namespace, key), (value, ttl) in pairs.items():
            kind, data = self.serde.dumps_typed(value)
            entries.append(
                {
                    "id": item_id(namespace, key),
                    "labels": list(namespace),
                    "type": kind,
                    "data": data,
                    "expires_at": None if ttl is None else now + timedelta(seconds=ttl),
                }
            )
        self._entries.put_many(entries, sync="os")

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Removes the values of these namespaces, or all."""
        if namespaces is None:
            self._entries.delete_many({}, sync="os")
            return
        for namespace in namespaces:
            labels: dict[str, object] = {"labels": {"$eq": list(namespace)}}
            if namespace:
                labels["id"] = {"$prefix": label_prefix(namespace)}
            self._entries.delete_many(labels, sync="os")

    aget = twin("read", get)
    aset = twin("write", set)
    aclear = twin("write", clear)
