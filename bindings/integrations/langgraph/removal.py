"""Removal of checkpoints without loss to those that stay.

A channel of LangGraph that stores its changes only (DeltaChannel) has no value at most checkpoints:
its value is the nearest one among the ancestors, and the writes since then. Where ancestors are
removed, that part of them stays in the collection `ancestor`, where no checkpoint is listed.

Invariants:
- Every channel of a checkpoint that stays can be rebuilt after a removal exactly when it could be
  before: all writes to it since its nearest value stay, and that value. A channel that has no
  version at a checkpoint was not written before it, as LangGraph has it.
- Nothing else of a removed checkpoint stays, but for the texts and numbers that were serialized
  with a value which is needed. A later removal removes what is needed no more.
- A removal from one namespace of a thread is in the caller's transaction as a whole.
"""

from collections.abc import Iterable
from typing import Any, Final

from amberdb import Document
from amberdb.integrations.langgraph.ids import namespace_id, part_of_thread, thread_id
from amberdb.integrations.langgraph.tables import Tables

_OWN_CHANNELS: Final = ("__", "branch:")
"""Beginnings of the names of LangGraph's own channels. They last one step and have no history."""

PLACE: Final = ["thread_id", "namespace", "checkpoint_id"]
"""Fields that say where a checkpoint belongs."""
_FIELDS: Final = ["id", "checkpoint_id", "parent_id", "blobs", "plain", "bare"]


def has_history(channel: str) -> bool:
    """Whether the writes to a channel can be needed by later checkpoints."""
    return not channel.startswith(_OWN_CHANNELS)


def remove(tables: Tables[Any], thread: str, namespace: str, doomed: Iterable[str]) -> None:
    """Removes the checkpoints with these checkpoint ids."""
    gone = set(doomed)
    prefix = {"id": {"$prefix": namespace_id(thread, namespace)}}
    stored = {row["checkpoint_id"]: row for row in tables.checkpoints.find(prefix, fields=_FIELDS)}
    older = {row["checkpoint_id"]: row for row in tables.ancestors.find(prefix, fields=_FIELDS)}
    kept = {id: row for id, row in stored.items() if id not in gone}
    needed = _needed(kept, {**older, **stored})
    for checkpoint_id in (gone & stored.keys()) | (older.keys() - kept.keys()):
        _reduce(tables, thread, namespace, checkpoint_id, needed.get(checkpoint_id))
    _drop_blobs(tables, thread, namespace)


def _needed(kept: dict[str, Any], rows: dict[str, Any]) -> dict[str, set[str]]:
    """Of each ancestor outside `kept` that is needed: the channels whose history goes over it."""
    needed: dict[str, set[str]] = {}
    for row in kept.values():
        bare: list[str] = row["bare"]
        open_channels = {channel for channel in bare if has_history(channel)}
        parent_id = row["parent_id"]
        while open_channels and parent_id in rows and parent_id not in kept:
            parent = rows[parent_id]
            known = needed.setdefault(parent_id, set())
            if open_channels <= known:
                break  # another checkpoint has gone this way, for as many channels
            known |= open_channels
            open_channels = open_channels - parent["blobs"].keys() - set(parent["plain"])
            parent_id = parent["parent_id"]
    return needed


def _reduce(
    tables: Tables[Any], thread: str, namespace: str, checkpoint_id: str, needed: set[str] | None
) -> None:
    """Removes a checkpoint or an ancestor but for the channels that are needed."""
    id = part_of_thread(thread, namespace, checkpoint_id)
    writes = {"id": {"$prefix": id}}
    if needed is None:
        tables.writes.delete_many(writes)
        tables.ancestors.delete(id)
    else:
        row: Document = tables.checkpoints.get(id) or tables.ancestors.get(id)
        plain = [channel for channel in row["plain"] if channel in needed]
        tables.ancestors.put(
            {
                "id": id,
                **{
                    name: row[name]
                    for name in ("thread_id", "namespace", "checkpoint_id", "parent_id", "type")
                },
                "data": row["data"] if plain else b"",
                "plain": plain,
                "blobs": {name: at for name, at in row["blobs"].items() if name in needed},
            }
        )
        for task in tables.writes.find(writes):
            left = [write for write in task["writes"] if write[1] in needed]
            if not left:
                tables.writes.delete(task["id"])
            elif len(left) < len(task["writes"]):
                tables.writes.put({**task, "writes": left})
    tables.checkpoints.delete(id)


def _drop_blobs(tables: Tables[Any], thread: str, namespace: str) -> None:
    """Removes the blobs that no checkpoint and no ancestor names."""
    prefix = {"id": {"$prefix": namespace_id(thread, namespace)}}
    named = {
        part_of_thread(thread, namespace, channel, version)
        for rows in (tables.checkpoints, tables.ancestors)
        for row in rows.find(prefix, fields=["blobs"])
        for channel, version in row["blobs"].items()
    }
    stored = tables.blobs.find(prefix, fields=["id"])
    tables.blobs.delete_many(ids=[row["id"] for row in stored if row["id"] not in named])


def remove_thread(tables: Tables[Any], thread: str) -> None:
    """Removes everything of a thread."""
    for table in tables:
        table.delete_many({"id": {"$prefix": thread_id(thread)}})


def keep_newest(tables: Tables[Any], thread: str) -> None:
    """Removes all checkpoints of a thread but for the newest one of each namespace."""
    prefix = {"id": {"$prefix": thread_id(thread)}}
    stored: dict[str, list[str]] = {}
    for row in tables.checkpoints.find(prefix, order_by="id", fields=PLACE):
        stored.setdefault(row["namespace"], []).append(row["checkpoint_id"])
    for namespace, checkpoint_ids in stored.items():
        remove(tables, thread, namespace, checkpoint_ids[:-1])
