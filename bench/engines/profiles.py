"""User profiles: AmberDB's, a table of SQLite, and a JSON file for each user.

Invariants:
- All store the same profiles, and return them decoded.
- The files are not synced: that is how programs that keep profiles in files write them.
"""

import json
import sqlite3
from abc import abstractmethod
from pathlib import Path
from typing import Any

import amberdb
from amberdb.profiles import UserProfiles
from amberdb.profiles.profiles import MAPS
from bench.engines.database import HELD_IN_MEMORY, Database
from bench.engines.sqlite import SQLITE_SETUP
from bench.workloads.events import Document


class ProfileEngine(Database):
    """Profiles by user."""

    @abstractmethod
    def get(self, user_id: str) -> dict[str, Any] | None: ...


class AmberProfiles(ProfileEngine):
    """The profiles that AmberDB comes with."""

    name = "amberdb"
    held = HELD_IN_MEMORY

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path)
        self._db = amberdb.open(path / "profiles.amber", **options)
        self._profiles = UserProfiles(self._db)

    def put_many(self, documents: list[Document]) -> None:
        for document in documents:
            fields = {name: value for name, value in document.items() if name != "user_id"}
            self._profiles.save(document["user_id"], fields)

    def get(self, user_id: str) -> dict[str, Any] | None:
        found: Any = self._profiles.get(user_id)
        return None if found is None else dict(found)

    def settle(self) -> None:
        self._db.checkpoint()

    def close(self) -> None:
        self._db.close()


class ProfileTable(ProfileEngine):
    """A column for each map, as JSON."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._table = sqlite3.connect(path / "profiles.sqlite", isolation_level=None)
        for pragma in SQLITE_SETUP:
            self._table.execute(pragma)
        self._table.execute(
            "CREATE TABLE IF NOT EXISTS user_memories (user_id TEXT PRIMARY KEY, user_name TEXT,"
            f" {', '.join(f'{name} TEXT' for name in MAPS)})"
        )

    def put_many(self, documents: list[Document]) -> None:
        rows = [
            (
                document["user_id"],
                document["user_name"],
                *(json.dumps(document[name], ensure_ascii=False) for name in MAPS),
            )
            for document in documents
        ]
        marks = ",".join("?" * (2 + len(MAPS)))
        self._table.execute("BEGIN IMMEDIATE")
        self._table.executemany(f"INSERT OR REPLACE INTO user_memories VALUES ({marks})", rows)
        self._table.execute("COMMIT")

    def get(self, user_id: str) -> dict[str, Any] | None:
        found = self._table.execute(
            f"SELECT user_name, {', '.join(MAPS)} FROM user_memories WHERE user_id = ?", (user_id,)
        ).fetchone()
        if found is None:
            return None
        maps = {name: json.loads(text) for name, text in zip(MAPS, found[1:], strict=True)}
        return {"user_id": user_id, "user_name": found[0], **maps}

    def settle(self) -> None:
        self._table.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._table.close()


class ProfileFiles(ProfileEngine):
    """A JSON file for each user."""

    name = "json files"

    def put_many(self, documents: list[Document]) -> None:
        for document in documents:
            text = json.dumps(document, ensure_ascii=False)
            self._file(document["user_id"]).write_text(text, encoding="utf-8")

    def get(self, user_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._file(user_id).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def _file(self, user_id: str) -> Path:
        return self.path / f"{user_id}.json"

    def settle(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
