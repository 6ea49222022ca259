"""The public API for an event loop: docs/aio.md.

    from amberdb import aio
    async with aio.open("memory.amber") as db: ...

Invariants:
- Only the aio modules of the systems and the server import it: a program without an event loop does
  not load asyncio.
"""

from amberdb.aio.collections import Collection, ReadableCollection, WritableCollection
from amberdb.aio.database import (
    Database,
    Opening,
    check,
    connect,
    open,
    repair,
    restore,
    verify_backup,
)
from amberdb.aio.feed import Subscriber
from amberdb.aio.transaction import Snapshot, Transaction

__all__ = [
    "open",
    "connect",
    "check",
    "repair",
    "restore",
    "verify_backup",
    "Database",
    "Collection",
    "ReadableCollection",
    "WritableCollection",
    "Transaction",
    "Snapshot",
    "Subscriber",
    "Opening",
]
