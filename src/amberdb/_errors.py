"""The exception tree: one root, one base per family of operation, leaves that say what to do.

Invariants:
- Every error raised on purpose derives from AmberError; leaves also derive from the built-in
  that people catch (KeyError, ValueError, TimeoutError ...).
- Every error can be pickled and keeps its facts as attributes: `lsn`, `path`, `offset` ...
"""

from typing import TYPE_CHECKING, Any


class AmberError(Exception):
    """Root of all errors of AmberDB. Facts given as keywords become attributes."""

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return self.message

    if TYPE_CHECKING:  # facts are set by name, so checkers learn of them here

        def __getattr__(self, name: str) -> Any: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.facts)


def _rebuild(kind: type[AmberError], message: str, facts: dict[str, Any]) -> AmberError:
    return kind(message, **facts)


# -- opening -------------------------------------------------------------------------------


class OpenError(AmberError):
    """The database could not be opened."""


class NotADatabaseError(OpenError, ValueError):
    """The path is a file, or a directory with something else in it: choose another path."""


class DatabaseMissingError(OpenError, FileNotFoundError):
    """Nothing is there, and the call was told not to create it."""


class LockedError(OpenError, BlockingIOError):
    """Another live process owns the directory (`pid`, `host`): close it there first."""


class FormatError(OpenError):
    """Written by a newer format or another engine: open it with the version that wrote it."""


class ReplacedError(OpenError):
    """Another database is at this path than when it was opened to read: open it again."""


# -- files and log -------------------------------------------------------------------------


class StorageError(AmberError):
    """Reading or writing files failed."""


class CorruptionError(StorageError):
    """Bytes on disk are not what was written. `path` and `offset` or `key` name the place."""

    def at(self, path: str) -> "CorruptionError":
        """The same of a file that it did not name."""
        return CorruptionError(f"{path}: {self.message}", **{**self.facts, "path": path})


class DiskFullError(StorageError, OSError):
    """No space was left; nothing of this call was stored. Free space and try again."""


class PoisonedError(StorageError):
    """An earlier write or sync failed. Reads go on; close and reopen the database to write."""


class LogTruncatedError(StorageError, LookupError):
    """The log no longer reaches back so far. `resume` is the Lsn to go on from."""


# -- backups -------------------------------------------------------------------------------


class BackupError(AmberError):
    """A backup could not be made or not be restored; nothing is left of the attempt."""


class BackupDamagedError(BackupError, CorruptionError):
    """An archive is not what was written, or none at all. `path` and `offset` name the place."""


class BackupChainError(BackupError, ValueError):
    """Archives that do not follow each other, or no longer this database: take a full backup, or
    name the whole chain in its order."""


class BackupExistsError(BackupError, FileExistsError):
    """Something is there already, and is not overwritten: choose another path."""


class RestorePointError(BackupError, LookupError):
    """The chain does not reach this point. `first_lsn` and `last_lsn` are those it has."""


# -- transactions --------------------------------------------------------------------------


class TransactionError(AmberError):
    """A transaction cannot do this."""


class BusyError(TransactionError, TimeoutError):
    """The writer lock, or room in memory, was not free within `timeout_s`: try again."""


class CommitUnknownError(TransactionError, OSError):
    """The sync failed: whether this commit survives is known only after reopening."""


class ConflictError(TransactionError, ValueError):
    """The document is not at the version that `if_version` named. Read it again and retry."""


class TransactionTooLargeError(TransactionError, ValueError):
    """Its effects are over `transaction_bytes_max`: write in several transactions."""


class SnapshotExpiredError(TransactionError, TimeoutError):
    """The snapshot was open longer than `snapshot_max_age_s`: take a new one."""


class ReadOnlyError(TransactionError, PermissionError):
    """The database was opened with read_only=True: write in the process that owns it."""


class ClosedError(AmberError, RuntimeError):
    """The database (or transaction, or snapshot) is closed: open it again."""


class ForkedError(ClosedError):
    """This process was forked from the owner: open the database in the child after the fork,
    or start children with the spawn method."""


# -- documents -----------------------------------------------------------------------------


class DocumentError(AmberError):
    """A document cannot be stored as given; nothing was stored."""


class InvalidDocumentError(DocumentError, ValueError):
    """A value or a type that AmberDB does not store. `field` names the place."""


class DocumentTooLargeError(InvalidDocumentError):
    """Larger than `document_bytes_max`. Split it, or raise the limit at open."""


class DuplicateKeyError(DocumentError, KeyError):
    """The id, or the value of a Unique index, exists already (`collection`, `key`)."""


class MissingKeyError(DocumentError, KeyError):
    """No document has this id (`collection`, `key`)."""


class EmbeddingError(DocumentError, RuntimeError):
    """The embedder of a Vector index failed, or gave something else than one vector per text."""


class MigrationError(DocumentError, RuntimeError):
    """A document cannot be brought to its collection's version (`collection`, `key`, `version`):
    mend the function, or put or delete the document. Nothing of it was changed."""


class ExtractionError(AmberError, ValueError):
    """An extractor could not be asked, or what it said cannot be used: nothing was stored."""


class ProjectionError(InvalidDocumentError):
    """A projection leaves fields out, so storing it would lose them: get the whole document."""


# -- queries -------------------------------------------------------------------------------


class QueryError(AmberError, ValueError):
    """The filter, the order or the limit makes no sense; the message names the part."""


class CursorError(QueryError):
    """The cursor is damaged, belongs to another query, or its index is gone: start again."""


class CollectionError(AmberError, ValueError):
    """The declaration of a collection or of an index is wrong."""


class CollectionVersionError(CollectionError):
    """The collection is at a newer `version` than the program knows: use the newer program."""


class CollectionMissingError(CollectionError, KeyError):
    """No such collection in the catalog: declare it with db.collection(name, indexes=[...])."""


# -- warnings ------------------------------------------------------------------------------


class AmberWarning(UserWarning):
    """Something works but will hurt later."""


class FullScanWarning(AmberWarning):
    """A query read more than 10,000 documents one by one: declare an index for it."""
