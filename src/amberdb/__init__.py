"""AmberDB: the embedded database for the memory of agents and apps.

    import amberdb

    with amberdb.open("memory.amber") as db:
        notes = db.collection("note", indexes=[amberdb.Text("content")])
        notes.put({"content": "umbrella is in the car"})
        notes.search("umbrella")

Every public name of the database is here. The systems on top have packages of their own:
amberdb.memory, chat, context, events, graph, profiles, series, telemetry, aio, server.

Invariants:
- `__all__` is the public API; every name in it says `__module__ == "amberdb"`, so errors, help()
  and pickles show the name under which it is imported, and inner modules can move.
- `import amberdb` loads the errors alone; any other module is loaded when a name of it is used
  (docs/decisions/0024-lazy-imports.md). Type checkers read the names in __init__.pyi.
"""

import importlib as _importlib
import os as _os

from amberdb import _errors, _public

if _os.name != "posix":
    raise ImportError("AmberDB runs on Linux and macOS; on Windows, use it within WSL")

__version__ = "0.1.0"

_NAMES = {
    "amberdb._connect": "connect",
    "amberdb._guide": "guide",
    "amberdb._types": "Document FieldPath Isolation Lsn Order Patch Sync Where",
    "amberdb.engine.backup.chain": "BackupReport restore_points verify_backup",
    "amberdb.engine.backup.history": "KnownBackup",
    "amberdb.engine.backup.rescue": "Rescue",
    "amberdb.engine.backup.restore": "RestoreReport restore",
    "amberdb.engine.commit.change_feed": "Change Subscriber",
    "amberdb.engine.database.collection": "Collection",
    "amberdb.engine.database.database": "Database",
    "amberdb.engine.database.open": "open",
    "amberdb.engine.database.readable_collection": "ReadableCollection",
    "amberdb.engine.database.repair": "repair",
    "amberdb.engine.database.stats": "FileBytes Latency Stats",
    "amberdb.engine.database.transaction": "Snapshot Transaction",
    "amberdb.engine.database.writable_collection": "WritableCollection",
    "amberdb.engine.failures": "JobFailure",
    "amberdb.engine.integrity.check": "CheckReport",
    "amberdb.engine.integrity.offline": "check",
    "amberdb.engine.integrity.repair": "RepairReport",
    "amberdb.engine.maintenance.compaction": "CompactReport",
    "amberdb.engine.maintenance.erasure": "Erasure",
    "amberdb.engine.options": "OpenOptions Options RollingBackups",
    "amberdb.engine.query.page": "Page Record",
    "amberdb.engine.schema.composite_id": "key",
    "amberdb.engine.schema.definition": "CollectionDef",
    "amberdb.engine.schema.documents": "Projection REMOVE",
    "amberdb.engine.schema.values": "equal to_json",
    "amberdb.engine.search.hits": "Hit Hits",
    "amberdb.engine.search.ranking": "Fusion Neighbors Recency",
    "amberdb.engine.storage.status": "Minute",
    "amberdb.index.ordered.ordered": "Ordered",
    "amberdb.index.ordered.unique": "Unique",
    "amberdb.index.paths": "value_at",
    "amberdb.index.registry": "IndexSpec",
    "amberdb.index.text.text": "Text",
    "amberdb.index.vector.vector": "Embed Vector",
}
"""Module -> the public names that it defines."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

_ERRORS = {
    name: _public.public(thing)
    for name, thing in vars(_errors).items()
    if isinstance(thing, type) and thing.__module__ == _errors.__name__
}

globals().update(_ERRORS)
__all__ = [*_MODULES, *_ERRORS]  # pyright: ignore[reportUnsupportedDunderAll]  # see __init__.pyi


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    thing = globals()[name] = getattr(_importlib.import_module(_MODULES[name]), name)
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
