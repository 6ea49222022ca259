"""Tests of a directory, run again on a server: what they open is a schema of one database there."""

import itertools
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Database

_schemas = itertools.count(1)


class Databases:
    """Every database that one test opened, each a schema of one database of the server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names: dict[str, str] = {}
        self._opened: list[Database] = []

    def open(self, name: str | Path = "t.amber", **options: Any) -> Database:
        schema = self._names.setdefault(str(name), f"s{next(_schemas)}")
        given: dict[str, Any] = {"background": False, **options}
        db = amberdb.connect(f"{self._url}?schema={schema}", **given)
        db.changes()  # from now on writers fill the outbox
        self._opened.append(db)
        return db

    def close(self) -> None:
        for db in self._opened:
            db.close()
