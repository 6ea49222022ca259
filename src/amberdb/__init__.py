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
from amberdb.engine.chain import (
    BackupReport,
    verify_backup,
)
from amberdb.engine.check import (
    CheckReport,
)
from amberdb.engine.collection import (
    Collection,
    Record,
)
from amberdb.engine.compaction import (
    CompactReport,
)
from amberdb.engine.database import (
    Database,
)
from amberdb.engine.database import (
    open_database as open,
)
from amberdb.engine.documents import (
    REMOVE,
    Projection,
)
from amberdb.engine.erasure import (
    Erasure,
)
from amberdb.engine.feed import (
    Change,
    Subscriber,
)
from amberdb.engine.known_backups import (
    KnownBackup,
)
from amberdb.engine.offline import (
    check_closed as check,
)
from amberdb.engine.options import (
    RollingBackups,
)
from amberdb.engine.page import (
    Page,
)
from amberdb.engine.repair import (
    RepairReport,
    repair,
)
from amberdb.engine.rescue import (
    Rescue,
)
from amberdb.engine.restore import (
    RestoreReport,
    restore,
)
from amberdb.engine.search import (
    Fusion,
    Hit,
    Hits,
    Recency,
)
from amberdb.engine.stats import (
    FileBytes,
    Latency,
    Stats,
)
from amberdb.engine.transaction import (
    Snapshot,
    Transaction,
)
from amberdb.index.ordered import (
    Ordered,
)
from amberdb.index.text import (
    Text,
)
from amberdb.index.unique import (
    Unique,
)
from amberdb.index.vector import (
    Vector,
)

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
