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
"""

from amberdb._connect import connect
from amberdb._errors import (
    AmberError,
    AmberWarning,
    BackupChainError,
    BackupDamagedError,
    BackupError,
    BackupExistsError,
    BusyError,
    ClockWarning,
    ClosedError,
    CollectionError,
    CollectionMissingError,
    CollectionVersionError,
    CommitUnknownError,
    ConflictError,
    CorruptionError,
    CursorError,
    DatabaseMissingError,
    DiskFullError,
    DocumentError,
    DocumentTooLargeError,
    DuplicateKeyError,
    EmbeddingError,
    ExtractionError,
    ForkedError,
    FormatError,
    FullScanWarning,
    InvalidDocumentError,
    LockedError,
    LogTruncatedError,
    MigrationError,
    MissingKeyError,
    NotADatabaseError,
    NoThreadWarning,
    NotSupportedHereError,
    OpenError,
    OptionsDifferError,
    PoisonedError,
    ProjectionError,
    QueryError,
    ReadersFullError,
    ReadOnlyError,
    ReplacedError,
    RestorePointError,
    ServerAccessError,
    ServerUnreachableError,
    SnapshotExpiredError,
    SnapshotLimitError,
    StorageError,
    StorageFullError,
    TransactionError,
    TransactionTooLargeError,
)
from amberdb._guide import guide
from amberdb._types import (
    Document,
    FieldPath,
    Isolation,
    Lsn,
    Order,
    Patch,
    Sync,
    Where,
)
from amberdb.engine.backup.chain import BackupReport, verify_backup
from amberdb.engine.backup.chain import points as restore_points
from amberdb.engine.backup.history import KnownBackup
from amberdb.engine.backup.rescue import Rescue
from amberdb.engine.backup.restore import RestoreReport, restore
from amberdb.engine.commit.change_feed import Change, Subscriber
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_database as open
from amberdb.engine.database.readable_collection import ReadableCollection
from amberdb.engine.database.repair import repair
from amberdb.engine.database.stats import FileBytes, Latency, Stats
from amberdb.engine.database.transaction import Snapshot, Transaction
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.failures import JobFailure
from amberdb.engine.integrity.check import CheckReport
from amberdb.engine.integrity.offline import check_closed as check
from amberdb.engine.integrity.repair import RepairReport
from amberdb.engine.maintenance.compaction import CompactReport
from amberdb.engine.maintenance.erasure import Erasure
from amberdb.engine.options import OpenOptions, Options, RollingBackups
from amberdb.engine.query.page import Page, Record
from amberdb.engine.schema.composite_id import key
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.documents import REMOVE, Projection
from amberdb.engine.schema.values import equal, to_json
from amberdb.engine.search.hits import Hit, Hits
from amberdb.engine.search.ranking import Fusion, Neighbors, Recency
from amberdb.engine.storage.status import Minute
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.paths import value_at
from amberdb.index.registry import IndexSpec
from amberdb.index.text.text import Text
from amberdb.index.vector.vector import Embed, Vector

__version__ = "0.1.0"

__all__ = [
    "open",
    "connect",
    "check",
    "repair",
    "restore",
    "verify_backup",
    "restore_points",
    "guide",
    "value_at",
    "key",
    "equal",
    "to_json",
    "Database",
    "Options",
    "OpenOptions",
    "Collection",
    "ReadableCollection",
    "WritableCollection",
    "ClockWarning",
    "CollectionDef",
    "Record",
    "Page",
    "Projection",
    "REMOVE",
    "Transaction",
    "Snapshot",
    "Change",
    "Subscriber",
    "CheckReport",
    "CompactReport",
    "Erasure",
    "KnownBackup",
    "RepairReport",
    "BackupReport",
    "Rescue",
    "RestoreReport",
    "RollingBackups",
    "Stats",
    "FileBytes",
    "Latency",
    "Minute",
    "JobFailure",
    "Ordered",
    "Unique",
    "Text",
    "Vector",
    "IndexSpec",
    "Embed",
    "Hit",
    "Hits",
    "Fusion",
    "Neighbors",
    "Recency",
    "Document",
    "FieldPath",
    "Patch",
    "Where",
    "Order",
    "Lsn",
    "Isolation",
    "Sync",
    "AmberError",
    "AmberWarning",
    "BackupChainError",
    "BackupDamagedError",
    "BackupError",
    "BackupExistsError",
    "BusyError",
    "ClosedError",
    "CollectionError",
    "CollectionMissingError",
    "CollectionVersionError",
    "CommitUnknownError",
    "ConflictError",
    "CorruptionError",
    "CursorError",
    "DatabaseMissingError",
    "DiskFullError",
    "DocumentError",
    "DocumentTooLargeError",
    "DuplicateKeyError",
    "EmbeddingError",
    "ExtractionError",
    "ForkedError",
    "FormatError",
    "FullScanWarning",
    "NoThreadWarning",
    "InvalidDocumentError",
    "LockedError",
    "OptionsDifferError",
    "LogTruncatedError",
    "MigrationError",
    "MissingKeyError",
    "NotADatabaseError",
    "OpenError",
    "PoisonedError",
    "ProjectionError",
    "QueryError",
    "ReadOnlyError",
    "ServerAccessError",
    "ServerUnreachableError",
    "NotSupportedHereError",
    "ReadersFullError",
    "ReplacedError",
    "RestorePointError",
    "SnapshotExpiredError",
    "SnapshotLimitError",
    "StorageError",
    "StorageFullError",
    "TransactionError",
    "TransactionTooLargeError",
]

for _name in __all__:
    _thing = globals()[_name]
    if getattr(_thing, "__module__", "").startswith("amberdb."):
        _thing.__module__ = __name__
        if hasattr(_thing, "__code__"):  # a function that is exported under a shorter name
            _thing.__name__ = _thing.__qualname__ = _name
