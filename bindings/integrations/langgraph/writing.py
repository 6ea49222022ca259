"""What a saver stores: LangGraph's checkpoints and writes to documents.

Invariants:
- A short plain value is inside the checkpoint, and any other value is a blob of its own. The value
  alone decides, so a value that a later checkpoint shares is found where the first one has put it.
- A write of a task that is stored stays; an error, an interrupt and the like are replaced.
- A copy has all that its source has, under the ids of its own thread.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from amberdb import Document
from amberdb.integrations.langgraph.ids import part_of_thread, thread_id
from amberdb.integrations.langgraph.reading import thread_of, values_inside
from amberdb.integrations.langgraph.removal import has_history
from amberdb.integrations.langgraph.tables import Tables

_PLAIN_CHARACTERS_MAX: Final = 64


def _is_plain(value: object) -> bool:
    if type(value) is str:
        return len(value) <= _PLAIN_CHARACTERS_MAX
    return value is None or type(value) in (bool, int, float)


def inherited(checkpoint: Checkpoint, new_versions: ChannelVersions) -> list[str]:
    """The channels that have no value in a checkpoint, and the version that they had before: their
    value is that of its parent, if it has one."""
    values = checkpoint["channel_values"]
    return [
        channel
        for channel in checkpoint["channel_versions"]
        if channel not in values and channel not in new_versions and has_history(channel)
    ]


def checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    parent: Document | None,
) -> tuple[Document, list[Document]]:
    """The document of a checkpoint, and its new blobs."""
    thread, namespace = thread_of(config)
    place = {"thread_id": thread, "namespace": namespace}
    plain: dict[str, Any] = {}
    named: dict[str, str] = {}
    blobs: list[Document] = []
    versions = checkpoint["channel_versions"]
    for channel, value in checkpoint["channel_values"].items():
        if _is_plain(value):
            plain[channel] = value
        elif channel in versions:
            version = named[channel] = str(versions[channel])
            if channel in new_versions:
                kind, data = serde.dumps_typed(value)
                id = part_of_thread(thread, namespace, channel, version)
                blob = {"id": id, **place, "channel": channel, "version": version}
                blobs.append({**blob, "type": kind, "data": data})
    if parent is not None:
        same = set(inherited(checkpoint, new_versions))
        plain |= values_inside(serde, parent, same)
        named |= {name: at for name, at in parent["blobs"].items() if name in same}
    all_metadata = get_checkpoint_metadata(config, metadata)
    kind, data = serde.dumps_typed({**checkpoint, "channel_values": plain})
    metadata_kind, metadata_data = serde.dumps_typed(all_metadata)
    row: Document = {
        "id": part_of_thread(thread, namespace, checkpoint["id"]),
        **place,
        "checkpoint_id": checkpoint["id"],
        "parent_id": get_checkpoint_id(config),
        "type": kind,
        "data": data,
        "metadata_type": metadata_kind,
        "metadata": metadata_data,
        "blobs": named,
        "plain": [*plain],
        "bare": [name for name in versions if name not in plain and name not in named],
    }
    if (run_id := all_metadata.get("run_id")) is not None:
        row["run_id"] = str(run_id)
    return row, blobs


def task(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Document:
    """The document of the writes of a task. Raises ValueError."""
    thread, namespace = thread_of(config)
    if not (checkpoint_id := get_checkpoint_id(config)):
        raise ValueError("the config has no checkpoint_id: pass the one that put() returned")
    rows: dict[int, list[Any]] = {}
    for number, (channel, value) in enumerate(writes):
        index = WRITES_IDX_MAP.get(channel, number)
        rows[index] = [index, channel, *serde.dumps_typed(value), task_path]
    return {
        "id": part_of_thread(thread, namespace, checkpoint_id, task_id),
        "thread_id": thread,
        "namespace": namespace,
        "checkpoint_id": checkpoint_id,
        "task_id": task_id,
        "writes": list(rows.values()),
    }


def merged(stored: Document, new: Document) -> Document:
    """The writes of a task that were stored, and those of them that are new."""
    rows = {row[0]: row for row in stored["writes"]}
    for row in new["writes"]:
        if row[0] < 0:
            rows[row[0]] = row
        else:
            rows.setdefault(row[0], row)
    return {**stored, "writes": list(rows.values())}


def copy(tables: Tables[Any], source: str, target: str) -> None:
    """Copies the documents of a thread."""
    last: Tables[tuple[str, ...]] = Tables(
        ("checkpoint_id",), ("checkpoint_id",), ("checkpoint_id", "task_id"), ("channel", "version")
    )
    for table, names in zip(tables, last, strict=True):
        table.put_many(_copies(table.find({"id": {"$prefix": thread_id(source)}}), names, target))


def _copies(rows: Iterable[Document], names: Sequence[str], target: str) -> Iterable[Document]:
    for row in rows:
        id = part_of_thread(target, row["namespace"], *(row[name] for name in names))
        yield {**row, "id": id, "thread_id": target}
