"""The parts behind a Database, for tests of what no public call shows."""

from amberdb import Database
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine


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
