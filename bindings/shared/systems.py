"""What every system does with its database: names of collections, and transactions of the caller.

Invariants:
- A system's collections have its owner mark, so none of them is one that the program made.
- A write within the caller's transaction is committed or undone with it.
"""

from contextlib import AbstractContextManager, nullcontext

from amberdb import Database, Sync, Transaction


def prefixed(name: str | None, collection: str) -> str:
    """The name of a system's collection: "chat", and with the name "shop" "shop_chat"."""
    return collection if name is None else f"{name}_{collection}"


def joined(
    db: Database, tx: Transaction | None, sync: Sync | None = None
) -> AbstractContextManager[Transaction]:
    """The caller's open transaction, which stays open, or a transaction of its own. Raises
    TransactionError."""
    if tx is None:
        return db.transaction(sync=sync)
    db.check_transaction(tx)
    return nullcontext(tx)
