"""The public names for the tasks of an event loop: docs/aio.md.

    from amberdb import aio
    async with aio.open("memory.amber") as db: ...

Invariants:
- Nothing else imports it, so a program without an event loop does not load asyncio.
"""

from amberdb.bindings.aio import (
    Database,
    Opening,
    check,
    open,
    repair,
    restore,
    verify_backup,
)
from amberdb.bindings.aio_collections import (
    Collection,
    ReadableCollection,
    WritableCollection,
)
from amberdb.bindings.aio_feed import (
    Subscriber,
)
from amberdb.bindings.aio_transaction import (
    Snapshot,
    Transaction,
)

__all__ = [
    "open",
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
