"""The exception tree: one root, one base per family of operations, leaves that name the remedy.

Invariants:
- Every error raised on purpose derives from AmberError; leaves also derive from the built-in
  that people catch (KeyError, ValueError, TimeoutError ...).
- Every error can be pickled and keeps its facts as attributes: `lsn`, `path`, `offset` ...
"""

import typing as _typing  # underscored, since every other name of this module is public


class AmberError(Exception):
    """Root of all errors of AmberDB. Facts passed as keywords become attributes."""

    def __init__(self, message: str, /, **facts: _typing.Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return self.message

    if _typing.TYPE_CHECKING:  # facts are set by name, which type checkers cannot see

        def __getattr__(self, name: str) -> _typing.Any: ...

    def __reduce__(self) -> tuple[_typing.Any, ...]:
        return _rebuild, (type(self), self.message, self.facts)


def _rebuild(kind: type[AmberError], message: str, facts: dict[str, _typing.Any]) -> AmberError:
    return kind(message, **facts)


# -- opening -------------------------------------------------------------------------------


class OpenError(AmberError):
    """The database could not be opened."""


class NotADatabaseError(OpenError, ValueError):
    """The path is a file, or a directory with other content: choose another path."""


class DatabaseMissingError(OpenError, FileNotFoundError):
    """No database is at the path, and the call does not create one."""


class LockedError(OpenError, BlockingIOError):
    """The database is open elsewhere (`pid`, `host`): close it there first."""


class OptionsDifferError(OpenError, ValueError):
    """The database is open in this process with another value of `option`: leave it out, or close
    the other handles first."""


class FormatError(OpenError):
    """Written in a newer format or by another engine: open it with the version that wrote it."""


class ServerAccessError(OpenError, PermissionError):
    """The database server knows no such user, password or database, or the user lacks a right."""


# -- files and log -------------------------------------------------------------------------


class StorageError(AmberError):
    """Reading or writing files failed."""


class ReplacedError(OpenError, StorageError):
    """The directory of an open database was removed, renamed or replaced, and nothing was written
    to what is there now: close the database and open its path again."""


class CorruptionError(StorageError):
    """Bytes on disk differ from the written ones. `path` and `offset` or `key` name the place."""

    def at(self, path: str) -> "CorruptionError":
        """This error with the path of the file that it is about."""
        return CorruptionError(f"{path}: {self.message}", **{**self.facts, "path": path})


class ReadersFullError(StorageError):
    """All slots of LMDB's reader table are taken; the message says by whom: close snapshots
    there."""


class DiskFullError(StorageError, OSError):
    """No space is left; nothing of this call was stored. Free space and try again."""


class StorageFullError(StorageError):
    """The database has reached `size_bytes_max`, or LMDB's map is full and cannot grow. Deletes,
    erase() and compact() still work: delete documents and compact, or raise the limit at open. In a
    reader: the file has outgrown the map that its snapshots keep; close them."""


class ServerUnreachableError(StorageError, ConnectionError):
    """The database server is down, or the connection to it was lost; nothing of this call was
    stored. Try again."""


class PoisonedError(StorageError):
    """An earlier write or sync failed. Reads continue; close and reopen the database to write."""


class LogTruncatedError(StorageError, LookupError):
    """Records of the log were recycled. `resume` is the Lsn to read after instead."""


# -- backups -------------------------------------------------------------------------------


class BackupError(AmberError):
    """A backup could not be made or restored; nothing of the attempt is left."""


class BackupDamagedError(BackupError, CorruptionError):
    """An archive is damaged, or the file is not an archive. `path` and `offset` name the place."""


class BackupChainError(BackupError, ValueError):
    """The archives are not a chain, or the database does not continue it: take a full backup, or
    name the whole chain in order."""


class BackupExistsError(BackupError, FileExistsError):
    """The target exists, and is not overwritten: choose another path."""


class RestorePointError(BackupError, LookupError):
    """The chain does not contain this point. `first_lsn` and `last_lsn` are its bounds."""


# -- transactions --------------------------------------------------------------------------


class TransactionError(AmberError):
    """A transaction failed or was refused."""


class BusyError(TransactionError, TimeoutError):
    """The writer lock, or room in the memtable, was not free within `timeout_s`: try again."""


class CommitUnknownError(TransactionError, OSError):
    """The sync failed, or the answer of a server was lost: read what was written, in a directory
    after opening it anew, to learn whether this commit survived."""


class ConflictError(TransactionError, ValueError):
    """The document is not at the version in `if_version`: read it again and retry. Or, on a server,
    another transaction was in the way: nothing was stored, and db.run() runs it again."""


class TransactionTooLargeError(TransactionError, ValueError):
    """The transaction is larger than `transaction_bytes_max`: write in several."""


class SnapshotExpiredError(TransactionError, TimeoutError):
    """The snapshot was open longer than `snapshot_max_age_ms`, or is one of a server on which a
    collection that it reads was declared anew or dropped: take a new one."""


class SnapshotLimitError(TransactionError, RuntimeError):
    """The handle has `snapshots_max` open snapshots: close the oldest, which the message names."""


class ReadOnlyError(TransactionError, PermissionError):
    """The database was opened with read_only=True, or is a replica of a server: write in the
    process that opened it to write, or to the primary."""


class ClosedError(AmberError, RuntimeError):
    """The database (or transaction, or snapshot) is closed: open it again."""


class NotSupportedHereError(AmberError, NotImplementedError):
    """The database is on a server, and the call or the index is not there: docs/remote.md."""


class ForkedError(ClosedError):
    """This process was forked from the owner: open the database in the child after the fork,
    or start children with the spawn method."""


# -- documents -----------------------------------------------------------------------------


class DocumentError(AmberError):
    """A document cannot be stored; nothing was stored."""


class InvalidDocumentError(DocumentError, ValueError):
    """A value or a type that is not storable. `field` names the place."""

    def of_document(self, id: str) -> "InvalidDocumentError":
        """The same error, with the id of the document."""
        return InvalidDocumentError(f"document {id!r}: {self.message}", **{**self.facts, "key": id})


class DocumentTooLargeError(InvalidDocumentError):
    """Larger than `document_bytes_max`. Split it, or raise the limit at open."""


class DuplicateKeyError(DocumentError, KeyError):
    """The id, or a value of a Unique index, exists already (`collection`, `key`)."""


class MissingKeyError(DocumentError, KeyError):
    """No document has this id (`collection`, `key`)."""


class EmbeddingError(DocumentError, RuntimeError):
    """The embedder of a Vector index failed, or did not return one vector per text."""


class MigrationError(DocumentError, RuntimeError):
    """A document cannot be upgraded to its collection's version (`collection`, `key`, `version`):
    correct the function, or put or delete the document. The document was not changed."""


class ExtractionError(AmberError, ValueError):
    """An extractor failed, or its answer is invalid; nothing was stored."""


class ProjectionError(InvalidDocumentError):
    """A projection omits fields, and storing it would lose them: get the whole document."""


# -- queries -------------------------------------------------------------------------------


class QueryError(AmberError, ValueError):
    """The filter, the order or the limit is invalid; the message names the part."""


class CursorError(QueryError):
    """The cursor is damaged, belongs to another query, or its index was dropped: start again."""


class CollectionError(AmberError, ValueError):
    """The declaration of a collection or of an index is invalid."""


class CollectionVersionError(CollectionError):
    """The stored collection has a newer `version` than the program: use the newer program."""


class CollectionMissingError(CollectionError, KeyError):
    """No such collection in the catalog: declare it with db.collection(name, indexes=[...])."""


# -- warnings ------------------------------------------------------------------------------


class AmberWarning(UserWarning):
    """A use that works now and will cause trouble later."""


class AmberDeprecationWarning(AmberWarning, DeprecationWarning):
    """A later version removes what was called: the message names the replacement and that version.
    See docs/deprecations.md."""


class FullScanWarning(AmberWarning):
    """A query read more than 10,000 documents one by one: declare an index for it."""


class NoThreadWarning(AmberWarning):
    """No thread could be started: background work is done by the calls that make it due, until a
    thread can be had again. Raise the limit of threads of the process or container."""


class ClockWarning(AmberWarning):
    """The clock is behind the last commit by more than `clock_slack_ms`: set the clock, or call
    `db.accept_clock()`."""
