"""AmberDB: the embedded database for the memory of agents and apps.

engine/     the database              index/      documents to sorted bytes
wal/        the log                   bindings/   what applications plug in
_errors, _types, _fs, _bytes          the ground floor

db = amberdb.open("memory.amber")
"""

from amberdb._errors import (
    AmberError,
    AmberWarning,
    BackupChainError,
    BackupDamagedError,
    BackupError,
    BackupExistsError,
    BusyError,
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
    OpenError,
    PoisonedError,
    ProjectionError,
    QueryError,
    ReadOnlyError,
    ReplacedError,
    RestorePointError,
    SnapshotExpiredError,
    StorageError,
    TransactionError,
    TransactionTooLargeError,
)
from amberdb._types import (
    Document,
    Lsn,
    Sync,
)
from amberdb.engine.backup.chain import BackupReport, verify_backup
from amberdb.engine.backup.history import KnownBackup
from amberdb.engine.backup.rescue import Rescue
from amberdb.engine.backup.restore import RestoreReport, restore
from amberdb.engine.commit.change_feed import Change, Subscriber
from amberdb.engine.database.collection import Collection, Record
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_database as open
from amberdb.engine.database.repair import repair
from amberdb.engine.database.stats import FileBytes, Latency, Stats
from amberdb.engine.database.transaction import Snapshot, Transaction
from amberdb.engine.integrity.check import CheckReport
from amberdb.engine.integrity.offline import check_closed as check
from amberdb.engine.integrity.repair import RepairReport
from amberdb.engine.maintenance.compaction import CompactReport
from amberdb.engine.maintenance.erasure import Erasure
from amberdb.engine.options import (
    RollingBackups,
)
from amberdb.engine.query.page import Page
from amberdb.engine.schema.documents import REMOVE, Projection
from amberdb.engine.search.search import Fusion, Hit, Hits, Recency
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.text.text import Text
from amberdb.index.vector.vector import Vector

__version__ = "0.1.0"

__all__ = [
    "open",
    "check",
    "repair",
    "restore",
    "verify_backup",
    "Database",
    "Collection",
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
    "Ordered",
    "Unique",
    "Text",
    "Vector",
    "Hit",
    "Hits",
    "Fusion",
    "Recency",
    "Document",
    "Lsn",
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
    "InvalidDocumentError",
    "LockedError",
    "LogTruncatedError",
    "MigrationError",
    "MissingKeyError",
    "NotADatabaseError",
    "OpenError",
    "PoisonedError",
    "ProjectionError",
    "QueryError",
    "ReadOnlyError",
    "ReplacedError",
    "RestorePointError",
    "SnapshotExpiredError",
    "StorageError",
    "TransactionError",
    "TransactionTooLargeError",
]
