"""Databases that are audited when a test leaves them, and clocks that tests turn by hand.

Invariants:
- Leaving `audited` runs check() and asserts that it found nothing, then closes; a test that has
  failed already keeps its own error.
- Options are small, so that a test of a few documents sees segments end, memtables reach LMDB
  and both mix; background work is off, so that nothing happens on its own.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import amberdb
from amberdb import Database

SMALL: dict[str, Any] = {
    "background": False,
    "segment_bytes_min": 4096,
    "segment_bytes_max": 65536,
    "map_bytes": 1 << 30,
}
"""Options that make little data do what much data does."""


class FakeClock:
    """Epoch seconds that stand still until a test moves them."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Negative to set it back."""
        self.now += seconds


class OpenDatabase(Protocol):
    """What the fixture `open_db` is: opens the test's database, or opens it again."""

    def __call__(self, name: str | Path = "t.amber", **options: Any) -> Database: ...


def assert_sound(db: Database) -> None:
    """Fails with the first problems that check() finds."""
    report = db.check()
    assert report.ok, report


@contextmanager
def audited(path: Path | str, **options: Any) -> Generator[Database]:
    """An open database with small options; checked and closed when the block ends well."""
    db = amberdb.open(path, **{**SMALL, **options})
    try:
        yield db
        if not is_closed(db):
            assert_sound(db)
    finally:
        db.close()


def is_closed(db: Database) -> bool:
    return repr(db).endswith(" closed>")


class Databases:
    """Every database that one test opened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened: list[Database] = []

    def open(self, name: str | Path = "t.amber", **options: Any) -> Database:
        path: Path | str = name if name == ":memory:" else self._directory / name
        db = amberdb.open(path, **{**SMALL, **options})
        self._opened.append(db)
        return db

    def finish(self) -> None:
        """Checks and closes what is still open, the newest first; then raises what was found."""
        first: BaseException | None = None
        for db in reversed(self._opened):
            try:
                if not is_closed(db):
                    assert_sound(db)
            except BaseException as error:
                first = first or error
            finally:
                db.close()
        if first is not None:
            raise first
