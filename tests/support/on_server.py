"""Tests of a directory, run again on a server: what they open is a schema of one database there."""

import itertools
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import amberdb
from amberdb import Database

_OPTIONS = {"clock", "sync", "document_bytes_max", "transaction_bytes_max", "query_bytes_max"}

_schemas = itertools.count(1)


class Databases:
    """Every database that one test opened, each a schema of one database of the server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names: dict[str, str] = {}
        self._opened: list[Database] = []

    def open(self, name: str | Path = "t.amber", **options: Any) -> Database:
        schema = self._names.setdefault(str(name), f"s{next(_schemas)}")
        kept = {key: value for key, value in options.items() if key in _OPTIONS}
        db = amberdb.connect(f"{self._url}?schema={schema}", **kept)
        db.changes()  # from now on writers fill the outbox
        self._opened.append(db)
        return db

    def close(self) -> None:
        for db in self._opened:
            db.close()


def adopt(
    namespace: dict[str, Any], modules: Iterable[ModuleType], left_out: Collection[str]
) -> None:
    """Puts the tests and fixtures of modules into a namespace, but for those that it has."""
    for module in modules:
        for name, thing in vars(module).items():
            is_fixture = type(thing).__name__ == "FixtureFunctionDefinition"
            is_test = name.startswith("test_") and name not in left_out
            if (is_test or is_fixture) and name not in namespace:
                namespace[name] = thing
