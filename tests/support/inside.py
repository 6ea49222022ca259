"""The parts behind a Database, for tests of what no public call shows."""

import lmdb

from amberdb import Database
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.trees import stored_names


def engine_of(db: Database) -> Engine:
    """The engine of a database that is open to write."""
    engine = db._handle.engine  # pyright: ignore[reportPrivateUsage]
    assert isinstance(engine, Engine)
    return engine


def following_of(db: Database) -> FollowingEngine:
    """The engine of a database that is open read-only."""
    engine = db._handle.engine  # pyright: ignore[reportPrivateUsage]
    assert isinstance(engine, FollowingEngine)
    return engine


def environment_of(store: Store) -> lmdb.Environment:
    """LMDB's environment of an open store."""
    return store._live()  # pyright: ignore[reportPrivateUsage]


def names_in(store: Store) -> list[bytes]:
    """The names of the trees in a file."""
    txn = store.begin()
    names = stored_names(txn)
    txn.abort()
    return names
