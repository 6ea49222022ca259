"""Reading of checkpoints: documents to LangGraph's tuples.

Invariants:
- A tuple is whole: its blobs are those that its checkpoint names. Where one was removed between two
  reads, everything is read again at one Lsn.
- Writes are in LangGraph's order: task path, task id, index.
- A page of a list reads its blobs in one call, and its writes in one for each namespace.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from amberdb import Document
from amberdb.integrations.langgraph.ids import (
    AFTER,
    namespace_id,
    part_of_thread,
    thread_id,
)
from amberdb.integrations.langgraph.tables import Tables

PAGE: Final = 64
"""Checkpoints that a list reads at once."""

Where: TypeAlias = dict[str, Any]


class BlobMissingError(Exception):
    """A blob was removed after its checkpoint was read."""


def thread_of(config: RunnableConfig) -> tuple[str, str]:
    """The thread and the namespace of a config. Raises ValueError."""
    configurable = config.get("configurable", {})
    thread = configurable.get("thread_id")
    if thread is None:
        raise ValueError(
            "the config has no thread: pass config={'configurable': {'thread_id': ...}}"
        )
    return str(thread), str(configurable.get("checkpoint_ns") or "")


def config_of(thread: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """The config of a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


def newest(tables: Tables[Any], thread: str, namespace: str) -> Document | None:
    """The newest checkpoint of a namespace."""
    prefix = {"id": {"$prefix": namespace_id(thread, namespace)}}
    page = tables.checkpoints.find(prefix, order_by="-id", limit=1)
    return cast(Document, page[0]) if page else None


def read_tuples(
    tables: Tables[Any], serde: SerializerProtocol, rows: Sequence[Document], *, is_fixed: bool
) -> list[CheckpointTuple]:
    """The tuples of checkpoints. Raises BlobMissingError unless the view `is_fixed`."""
    blobs = _read_blobs(tables, rows, is_fixed=is_fixed)
    writes = _read_writes(tables, rows)
    return [_tuple(serde, row, blobs, writes[row["id"]]) for row in rows]


def _blob_ids(row: Document) -> Iterator[tuple[str, str]]:
    thread, namespace = row["thread_id"], row["namespace"]
    for channel, version in row["blobs"].items():
        yield channel, part_of_thread(thread, namespace, channel, version)


def _read_blobs(
    tables: Tables[Any], rows: Iterable[Document], *, is_fixed: bool
) -> dict[str, Document]:
    ids = list(dict.fromkeys(id for row in rows for _, id in _blob_ids(row)))
    found: dict[str, Document] = {}
    if ids:
        # One get() takes a third of the time of a get_many() of one.
        blobs = tables.blobs.get_many(ids) if len(ids) > 1 else [tables.blobs.get(ids[0])]
        for id, blob in zip(ids, blobs, strict=True):
            if blob is not None:
                found[id] = blob
            elif not is_fixed:
                raise BlobMissingError
    return found


def _read_writes(tables: Tables[Any], rows: Sequence[Document]) -> dict[str, list[Document]]:
    """The documents of `writes` by the id of their checkpoint."""
    found: dict[str, list[Document]] = {row["id"]: [] for row in rows}
    if len(rows) == 1:
        id = rows[0]["id"]
        found[id] = list(tables.writes.find({"id": {"$prefix": id}}))
        return found
    ids: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        ids[row["thread_id"], row["namespace"]].append(row["id"])
    for (thread, namespace), of_namespace in ids.items():
        bounds = {"$gte": min(of_namespace), "$lt": max(of_namespace) + AFTER}
        for task in tables.writes.find({"id": bounds}):
            of_checkpoint = found.get(part_of_thread(thread, namespace, task["checkpoint_id"]))
            if of_checkpoint is not None:
                of_checkpoint.append(task)
    return found


def pending(serde: SerializerProtocol, tasks: Iterable[Document]) -> list[PendingWrite]:
    """The writes at one checkpoint, in LangGraph's order."""
    return [
        (task_id, channel, serde.loads_typed((kind, data)))
        for _, task_id, _, channel, kind, data in _ordered(tasks)
    ]


def _ordered(tasks: Iterable[Document]) -> list[tuple[str, str, int, str, str, bytes]]:
    return sorted(
        (path, task["task_id"], index, channel, kind, data)
        for task in tasks
        for index, channel, kind, data, path in task["writes"]
    )


def _tuple(
    serde: SerializerProtocol, row: Document, blobs: dict[str, Document], tasks: list[Document]
) -> CheckpointTuple:
    thread, namespace, parent = row["thread_id"], row["namespace"], row["parent_id"]
    checkpoint: Checkpoint = serde.loads_typed((row["type"], row["data"]))
    for channel, id in _blob_ids(row):
        if (blob := blobs.get(id)) is not None:
            value = serde.loads_typed((blob["type"], blob["data"]))
            checkpoint["channel_values"][channel] = value
    return CheckpointTuple(
        config_of(thread, namespace, row["checkpoint_id"]),
        checkpoint,
        serde.loads_typed((row["metadata_type"], row["metadata"])),
        None if parent is None else config_of(thread, namespace, parent),
        pending(serde, tasks) if tasks else [],
    )


def where_listed(config: RunnableConfig | None, before: RunnableConfig | None) -> tuple[Where, str]:
    """The filter and the order of a list."""
    where: Where = {}
    order = "-checkpoint_id"
    limit = get_checkpoint_id(before) if before else None
    if config:
        thread, namespace = thread_of(config)
        where["id"] = {"$prefix": thread_id(thread)}
        if config.get("configurable", {}).get("checkpoint_ns") is not None:
            order = "-id"
            where["id"] = {"$prefix": namespace_id(thread, namespace)}
            if limit is not None:
                where["id"]["$lt"] = part_of_thread(thread, namespace, limit)
        if (checkpoint_id := get_checkpoint_id(config)) is not None:
            where["checkpoint_id"] = checkpoint_id
    if limit is not None and order != "-id":
        where["$and"] = [{"checkpoint_id": {"$lt": limit}}]
    return where, order


def history(
    tables: Tables[Any],
    serde: SerializerProtocol,
    target: Document | None,
    channels: Sequence[str],
) -> dict[str, DeltaChannelHistory]:
    """Of each channel: its value at the nearest ancestor with one, and the writes since then."""
    writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    row = target
    left = set(channels)
    while left and row is not None and row["parent_id"] is not None:
        id = part_of_thread(row["thread_id"], row["namespace"], row["parent_id"])
        row = tables.checkpoints.get(id) or tables.ancestors.get(id)
        if row is None:
            break
        tasks = tables.writes.find({"id": {"$prefix": id}})
        for _, task_id, _, channel, kind, data in reversed(_ordered(tasks)):
            if channel in left:
                writes[channel].append((task_id, channel, serde.loads_typed((kind, data))))
        here = _values(tables, serde, row, left)
        seeds |= here
        left -= here.keys()
    found: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        found[channel] = {"writes": writes[channel][::-1]}
        if channel in seeds:
            found[channel]["seed"] = seeds[channel]
    return found


def _values(
    tables: Tables[Any], serde: SerializerProtocol, row: Document, channels: set[str]
) -> dict[str, Any]:
    """The values of these channels at one checkpoint or ancestor, of those that have one there."""
    found = values_inside(serde, row, channels)
    for channel, id in _blob_ids(row):
        if channel in channels and (blob := tables.blobs.get(id)) is not None:
            found[channel] = serde.loads_typed((blob["type"], blob["data"]))
    return found


def values_inside(serde: SerializerProtocol, row: Document, channels: set[str]) -> dict[str, Any]:
    """The values of these channels that are inside a checkpoint or an ancestor."""
    if channels.isdisjoint(row["plain"]):
        return {}
    values = serde.loads_typed((row["type"], row["data"]))["channel_values"]
    return {channel: values[channel] for channel in channels.intersection(row["plain"])}
