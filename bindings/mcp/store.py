"""What the tools work on: the graph and the memory of one namespace, in one open database.

Invariants:
- The database is opened in one place, open_store(). One that cannot be opened ends no server: the
  call that needs it answers with the reason, and the next call tries again.
- Calls of the database run in threads of their own; the event loop only waits for them.
- A handle that can serve no more (the directory was replaced, a sync failed) is closed, and the
  next call opens the database again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, final

from amberdb import (
    AmberError,
    ClosedError,
    Database,
    LockedError,
    PoisonedError,
    ReplacedError,
    aio,
)
from amberdb._shared.systems import prefixed
from amberdb.aio.database import connect_or_open
from amberdb.graph import KnowledgeGraph
from amberdb.mcp.answers import ToolError
from amberdb.mcp.options import McpOptions, default_path
from amberdb.memory import Memory

R = TypeVar("R")

_LOCKED: Final = (
    "{0.path} is open in process {0.pid} on host {0.host}, which does not share it: close that "
    "program, have it use amberdb.connect(), or start this server with --read-only beside it; then "
    "call again, since each call tries to open it. Nothing was stored."
)


def graph_name(namespace: str | None) -> str:
    """The name of the graph of a namespace."""
    return prefixed(namespace, "graph")


@final
class Store:
    """The systems of one namespace; threads may share it. Raises CollectionError."""

    def __init__(self, db: Database, options: McpOptions) -> None:
        name = options.namespace
        self.db = db
        self.options = options
        self.graph = KnowledgeGraph(
            db,
            name=graph_name(name),
            embed=options.embed,
            dim=options.dim,
            model=options.model,
        )
        self.memory = Memory(
            db, name=name, embed=options.embed, dim=options.dim, model=options.model
        )
        self.layers = {"profile": prefixed(name, "profile"), "event": prefixed(name, "event")}
        """The collections of layered memory."""
        self.log = prefixed(name, "log")


async def open_store(path: str | None, options: McpOptions) -> tuple[aio.Database, Store]:
    """The database with its systems, shared with the other programs that share it; without a path
    the one in the user's data directory. Raises
    OpenError, CollectionError, StorageError, OSError."""
    if path is None:
        found = default_path()
        if not options.read_only:
            await asyncio.to_thread(_make_parent, found)
        path = str(found)
    db = await (aio.open(path, read_only=True) if options.read_only else connect_or_open(path))
    try:
        return db, await db.in_thread(Store, db.blocking, options)
    except BaseException:
        await db.close()
        raise


@final
class OpenedStore:
    """The store of a server, opened when it is first needed."""

    def __init__(self, path: str | None, options: McpOptions) -> None:
        self._path = path
        self._options = options
        self._lock = asyncio.Lock()
        self._opened: tuple[aio.Database, Store] | None = None

    async def run(self, work: Callable[[Store], R]) -> R:
        """Calls `work` with the store, in a thread. Raises ToolError for a database that is open
        elsewhere, and as open_store() and `work` do."""
        db, store = await self.database()
        try:
            return await db.in_thread(work, store)
        except (ClosedError, PoisonedError, ReplacedError):
            await self._drop(db)
            raise

    async def database(self) -> tuple[aio.Database, Store]:
        """The open database. Raises as open_store(), and ToolError when it is open elsewhere."""
        async with self._lock:
            if self._opened is None:
                try:
                    self._opened = await open_store(self._path, self._options)
                except LockedError as error:
                    text = error.message if error.pid is None else _LOCKED.format(error)
                    raise ToolError(text) from error
            return self._opened

    async def close(self) -> None:
        """Closes the database. Raises CommitUnknownError when its last sync failed."""
        async with self._lock:
            opened, self._opened = self._opened, None
            if opened is not None:
                await opened[0].close()

    async def _drop(self, db: aio.Database) -> None:
        async with self._lock:
            if self._opened is None or self._opened[0] is not db:
                return
            self._opened = None
            try:
                await db.close()
            except AmberError:
                pass  # its error is that of the call, which is reported


def _make_parent(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
