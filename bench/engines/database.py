"""What every compared database has: a directory, commits, and a settled state.

Invariants:
- put_many() is durable when it returns; the ingest of an engine that cannot do this is not timed,
  or its name says so (see bench/README.md).
- A peer imports its packages when it is constructed; callers check first that they are installed.
- A database that was closed, or whose process was killed, can be opened again from its directory.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from bench.workloads.events import Document

_NEVER = 1 << 40
"""A size and an interval that are never reached, so that no checkpoint runs."""
HELD_IN_MEMORY: Mapping[str, Any] = {
    "checkpoint_bytes": _NEVER,
    "memtable_bytes_max": _NEVER,
    "checkpoint_interval_ms": _NEVER,
}
"""Options of AmberDB with which commits stay in the memtable and the log."""


def library(name: str) -> Any:
    """The module, typed Any so that type checkers pass whether or not it is installed."""
    return importlib.import_module(name)


class Database(ABC):
    """One database in one directory."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra `peers` that the engine needs."""
    held: ClassVar[Mapping[str, Any]] = {}
    """Options of the constructor with which no commit leaves memory and log by itself; a peer has
    its defaults."""
    recovers: ClassVar[bool] = True
    """Whether a process that opens it after a kill finds everything that was acknowledged."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    @abstractmethod
    def put_many(self, documents: list[Document]) -> None:
        """All in one durable commit."""

    def put(self, document: Document) -> None:
        """One document in a durable commit."""
        self.put_many([document])

    @abstractmethod
    def settle(self) -> None:
        """Moves the contents of logs and memory into the data files and indexes."""

    @abstractmethod
    def close(self) -> None: ...


Kind = TypeVar("Kind", bound=Database)


def installed(kinds: Iterable[type[Kind]]) -> tuple[list[type[Kind]], dict[str, str]]:
    """The kinds whose packages are installed, and a row's notes on the others."""
    found: list[type[Kind]] = []
    left_out: dict[str, str] = {}
    for kind in kinds:
        missing = [name for name in kind.packages if importlib.util.find_spec(name) is None]
        if missing:
            left_out[f"left out: {kind.name}"] = f"{missing[0]} is not installed"
        else:
            found.append(kind)
    return found, left_out
