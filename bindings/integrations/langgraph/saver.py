"""AmberSaver: LangGraph's checkpoints in AmberDB.

Invariants:
- put() and put_writes() are one durable commit each, and so is the removal or the copy of a
  thread. What has returned is there after a crash, whole.
- A value that a checkpoint shares with its parent is stored once.
- prune(), delete_for_runs() and copy_thread() keep the history of channels that store changes only
  (removal.py).
- Checkpoint ids order the checkpoints of a namespace, as LangGraph makes them.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from amberdb import Document, Snapshot
from amberdb.integrations.langgraph import reading, removal, tables, writing
from amberdb.integrations.langgraph.ids import part_of_thread
from amberdb.integrations.langgraph.tables import Tables
from amberdb.integrations.opened import Closing, DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread, twin


class AmberSaver(Closing, BaseCheckpointSaver[str]):
    """A checkpointer: `builder.compile(checkpointer=AmberSaver("agent.amber"))`.

        with AmberSaver("agent.amber") as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke(inputs, {"configurable": {"thread_id": "1"}})

    db     an open Database, or the path of one, which close() closes
    name   what the names of its collections begin with
    serde  the serializer of values, LangGraph's own by default

    Each method has a twin for event loops, which runs it in a thread. Raises OpenError for a path,
    CollectionError where a program has collections of these names.
    """

    def __init__(
        self,
        db: DatabaseOrPath,
        *,
        name: str = "langgraph",
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._opened = Opened(db)
        self._names = tables.names(name)
        with self._opened.closed_on_error() as opened:
            self._tables = tables.declare(opened, self._names)

    # -- reading -----------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint of a config, or the newest one of its thread and namespace. Raises
        ValueError without a thread."""
        thread, namespace = reading.thread_of(config)
        checkpoint_id = get_checkpoint_id(config)

        def rows(at: Tables[Any]) -> list[Document]:
            if checkpoint_id:
                row = at.checkpoints.get(part_of_thread(thread, namespace, checkpoint_id))
            else:
                row = reading.newest(at, thread, namespace)
            return [] if row is None else [row]

        found, _ = self._read(rows)
        if not found:
            return None
        return found[0]._replace(config=config) if checkpoint_id else found[0]

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, the newest first; `filter` is about their metadata."""
        for page in self._pages(config, filter, before, limit):
            yield from page

    def _pages(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Iterator[Sequence[CheckpointTuple]]:
        """list() in pages."""
        where, order = reading.where_listed(config, before)
        left, after = limit, None
        while left is None or left > 0:
            size = reading.PAGE if left is None or filter else min(left, reading.PAGE)

            def rows(at: Tables[Any], size: int = size, after: str | None = after) -> Any:
                return at.checkpoints.find(where, order_by=order, limit=size, after=after)

            found, page = self._read(rows, filter)
            yield found[:left]
            left = None if left is None else left - len(found)
            after = page.cursor
            if after is None:
                return

    def _read(
        self, rows: Callable[[Tables[Any]], Any], filter: dict[str, Any] | None = None
    ) -> tuple[Sequence[CheckpointTuple], Any]:
        """The tuples of the rows that a filter matches, and the rows. A snapshot costs more than
        the reads, so it is taken only after a removal came in between."""
        try:
            return self._read_at(self._tables, rows, filter, is_fixed=False)
        except reading.BlobMissingError:
            with self._opened.db.snapshot() as at:
                return self._read_at(self._within(at), rows, filter, is_fixed=True)

    def _read_at(
        self,
        at: Tables[Any],
        rows: Callable[[Tables[Any]], Any],
        filter: dict[str, Any] | None,
        *,
        is_fixed: bool,
    ) -> tuple[Sequence[CheckpointTuple], Any]:
        page = rows(at)
        matching = [row for row in page if self._matches(row, filter)] if filter else page
        if not matching:
            return [], page
        return reading.read_tuples(at, self.serde, matching, is_fixed=is_fixed), page

    def _within(self, at: Snapshot) -> Tables[Any]:
        return tables.within(at, self._names)

    def _matches(self, row: Document, filter: dict[str, Any]) -> bool:
        metadata = self.serde.loads_typed((row["metadata_type"], row["metadata"]))
        return all(metadata.get(name) == value for name, value in filter.items())

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Of each channel: its value at the nearest ancestor that has one, and the writes since."""
        thread, namespace = reading.thread_of(config)
        checkpoint_id = get_checkpoint_id(config)
        with self._opened.db.snapshot() as snapshot:
            at = self._within(snapshot)
            if checkpoint_id:
                row = at.checkpoints.get(part_of_thread(thread, namespace, checkpoint_id))
            else:
                row = reading.newest(at, thread, namespace)
            return reading.history(at, self.serde, row, channels)

    # -- writing -----------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint, and the values that are new in it, in one durable commit."""
        thread, namespace = reading.thread_of(config)
        parent = None
        if (parent_id := get_checkpoint_id(config)) and writing.inherited(checkpoint, new_versions):
            parent = self._tables.checkpoints.get(part_of_thread(thread, namespace, parent_id))
        row, blobs = writing.checkpoint(
            self.serde, config, checkpoint, metadata, new_versions, parent
        )
        with self._opened.db.transaction() as tx:
            if blobs:
                tx[self._names.blobs].put_many(blobs)
            tx[self._names.checkpoints].put(row)
        return reading.config_of(thread, namespace, row["checkpoint_id"])

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores the writes of a task. A write that is there already stays; one of LangGraph's own
        (an error, an interrupt) is replaced."""
        row = writing.task(self.serde, config, writes, task_id, task_path)
        with self._opened.db.transaction() as tx:
            table = tx[self._names.writes]
            if (stored := table.get(row["id"])) is not None:
                row = writing.merged(stored, row)
            table.put(row)

    # -- threads -----------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Removes everything of a thread."""
        with self._opened.db.transaction() as tx:
            removal.remove_thread(tables.within(tx, self._names), str(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Removes the checkpoints that these runs made. What later checkpoints need of them to
        rebuild their values stays."""
        where = {"run_id": {"$in": [str(run_id) for run_id in run_ids]}}
        with self._opened.db.transaction() as tx:
            at = tables.within(tx, self._names)
            doomed: dict[tuple[str, str], list[str]] = {}
            for row in at.checkpoints.find(where, fields=removal.PLACE):
                place = doomed.setdefault((row["thread_id"], row["namespace"]), [])
                place.append(row["checkpoint_id"])
            for (thread, namespace), checkpoint_ids in doomed.items():
                removal.remove(at, thread, namespace, checkpoint_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies everything of a thread to another one, in one commit."""
        with self._opened.db.transaction() as tx:
            at = tables.within(tx, self._names)
            writing.copy(at, str(source_thread_id), str(target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Leaves the newest checkpoint of each namespace ("keep_latest"), or nothing ("delete"). A
        commit for each thread.

        What the newest one needs of older ones to rebuild its values stays, and is not listed.
        Raises ValueError for another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy is 'keep_latest' or 'delete', not {strategy!r}")
        for thread in map(str, thread_ids):
            with self._opened.db.transaction() as tx:
                at = tables.within(tx, self._names)
                if strategy == "delete":
                    removal.remove_thread(at, thread)
                else:
                    removal.keep_newest(at, thread)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The next version of a channel: a number, and chance, so that branches differ."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"

    # -- for an event loop -------------------------------------------------------------------

    aget_tuple = twin("read", get_tuple)
    aget_delta_channel_history = twin("read", get_delta_channel_history)
    aput = twin("write", put)
    aput_writes = twin("write", put_writes)
    adelete_thread = twin("write", delete_thread)
    adelete_for_runs = twin("write", delete_for_runs)
    acopy_thread = twin("write", copy_thread)
    aprune = twin("write", prune)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """list(), each page of which is read in a thread."""
        pages = self._pages(config, filter, before, limit)
        while (page := await in_thread("read", next, pages, None)) is not None:
            for found in page:
                yield found
