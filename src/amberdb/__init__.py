"""AmberDB: the embedded database for the memory of agents and apps.

engine/     the database              index/      documents to sorted bytes
wal/        the log                   bindings/   what applications plug in
_errors, _types, _fs, _bytes          the ground floor

db = amberdb.open("memory.amber")
"""

from amberdb._errors import (
    AmberError as AmberError,
)
from amberdb._errors import (
    AmberWarning as AmberWarning,
)
from amberdb._errors import (
    BusyError as BusyError,
)
from amberdb._errors import (
    ClosedError as ClosedError,
)
from amberdb._errors import (
    CollectionError as CollectionError,
)
from amberdb._errors import (
    CollectionMissingError as CollectionMissingError,
)
from amberdb._errors import (
    CommitUnknownError as CommitUnknownError,
)
from amberdb._errors import (
    ConflictError as ConflictError,
)
from amberdb._errors import (
    CorruptionError as CorruptionError,
)
from amberdb._errors import (
    CursorError as CursorError,
)
from amberdb._errors import (
    DatabaseMissingError as DatabaseMissingError,
)
from amberdb._errors import (
    DiskFullError as DiskFullError,
)
from amberdb._errors import (
    DocumentError as DocumentError,
)
from amberdb._errors import (
    DocumentTooLargeError as DocumentTooLargeError,
)
from amberdb._errors import (
    DuplicateKeyError as DuplicateKeyError,
)
from amberdb._errors import (
    ForkedError as ForkedError,
)
from amberdb._errors import (
    FormatError as FormatError,
)
from amberdb._errors import (
    FullScanWarning as FullScanWarning,
)
from amberdb._errors import (
    InvalidDocumentError as InvalidDocumentError,
)
from amberdb._errors import (
    LockedError as LockedError,
)
from amberdb._errors import (
    LogTruncatedError as LogTruncatedError,
)
from amberdb._errors import (
    MissingKeyError as MissingKeyError,
)
from amberdb._errors import (
    NotADatabaseError as NotADatabaseError,
)
from amberdb._errors import (
    OpenError as OpenError,
)
from amberdb._errors import (
    PoisonedError as PoisonedError,
)
from amberdb._errors import (
    ProjectionError as ProjectionError,
)
from amberdb._errors import (
    QueryError as QueryError,
)
from amberdb._errors import (
    SnapshotExpiredError as SnapshotExpiredError,
)
from amberdb._errors import (
    StorageError as StorageError,
)
from amberdb._errors import (
    TransactionError as TransactionError,
)
from amberdb._errors import (
    TransactionTooLargeError as TransactionTooLargeError,
)
from amberdb._types import Document as Document
from amberdb._types import Lsn as Lsn
from amberdb._types import Sync as Sync
from amberdb.engine.check import CheckReport as CheckReport
from amberdb.engine.collection import Collection as Collection
from amberdb.engine.collection import Record as Record
from amberdb.engine.database import Database as Database
from amberdb.engine.database import open_database as open
from amberdb.engine.documents import REMOVE as REMOVE
from amberdb.engine.documents import Projection as Projection
from amberdb.engine.feed import Change as Change
from amberdb.engine.feed import Subscriber as Subscriber
from amberdb.engine.page import Page as Page
from amberdb.engine.transaction import Snapshot as Snapshot
from amberdb.engine.transaction import Transaction as Transaction
from amberdb.index.ordered import Ordered as Ordered
from amberdb.index.unique import Unique as Unique

__version__ = "0.1.0"
