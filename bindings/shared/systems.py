"""What every system does with its database: names of collections, and transactions of the caller.

Invariants:
- A system's collections have its owner mark, so none of them is one that the program made.
- A write within the caller's transaction is committed or undone with it.
- Where transactions run side by side, each holds what it decides by: it reads the document by its
  id, or locks a name (docs/remote-transactions.md).
"""

from collections.abc import Callable
from typing import TypeVar

from amberdb import Database, Sync, Transaction

_T = TypeVar("_T")


def prefixed(name: str | None, collection: str) -> str:
    """The name of a system's collection: "chat", and with the name "shop" "shop_chat"."""
    return collection if name is None else f"{name}_{collection}"


def in_transaction(
    db: Database,
    tx: Transaction | None,
    work: Callable[[Transaction], _T],
    sync: Sync | None = None,
) -> _T:
    """The result of `work` with the caller's open transaction, which stays open, or with one of its
    own: db.run(), so it may be called again. Raises TransactionError."""
    if tx is None:
        return db.run(work, sync=sync)
    db.check_transaction(tx)
    return work(tx)
