"""Errors of the server, in the types of AmberDB.

Invariants:
- A message says what to do, and has neither a password nor a value of a document.
- Whether a commit was done is never guessed: an answer that was lost is a CommitUnknownError.
"""

from typing import Final, NoReturn, final

import psycopg
from psycopg import errors

from amberdb._attempts import Overtaken
from amberdb._errors import (
    AmberError,
    BusyError,
    CommitUnknownError,
    DiskFullError,
    InvalidDocumentError,
    NotSupportedHereError,
    ReadOnlyError,
    ServerAccessError,
    ServerUnreachableError,
    StorageError,
    TransactionError,
)
from amberdb.postgres.address import Address

_REASON_CHARACTERS_MAX: Final = 300
_PASSING: Final = ("starting up", "shutting down", "recovery", "terminating", "too many", "slots")
"""In the refusal of a server that may take the next connection."""
_LOST_CLASSES: Final = ("08", "57")
STALE: Final = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)
"""A statement that was made by a declaration which is gone."""


@final
class Reporter:
    """Makes typed errors for one database."""

    __slots__ = ("_secrets", "_where")

    def __init__(self, address: Address) -> None:
        self._where = address.where
        self._secrets = address.secrets

    def raise_typed(self, error: BaseException, *, committing: bool = False) -> None:
        """Raises the typed form of an error of the driver; does nothing for any other."""
        if isinstance(error, psycopg.Error):
            raise self.typed(error, committing=committing) from None

    def typed(self, error: psycopg.Error, *, committing: bool = False) -> AmberError:
        """The error to raise in place of the driver's. `committing`: it is the answer to COMMIT."""
        where, text = self._where, self._text(error)
        if is_lost(error):
            if committing:
                return CommitUnknownError(
                    f"{where}: the connection was lost before the answer to a commit: read what "
                    "was written to learn whether it is there"
                )
            return self._unreachable(error, text)
        if isinstance(error, errors.SerializationFailure | errors.DeadlockDetected):
            return Overtaken(f"{where}: another writer was in the way ({text}): run it again")
        if isinstance(error, errors.UniqueViolation):
            return Overtaken(
                f"{where}: another writer stored one of the documents first: run it again"
            )
        if isinstance(error, errors.LockNotAvailable):
            return BusyError(f"{where}: a lock was not free in time: try again")
        if isinstance(error, STALE):
            return Overtaken(f"{where}: a collection was declared anew meanwhile: run it again")
        if isinstance(error, errors.InFailedSqlTransaction):
            return TransactionError("an earlier call of this transaction failed: leave its block")
        if isinstance(error, errors.DiskFull):
            return DiskFullError(f"{where}: the disk of the server is full: free space there")
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return ReadOnlyError(
                f"{where} takes no writes ({text}): it is a replica, or set to be read-only; "
                "connect to its primary"
            )
        if isinstance(error, errors.InsufficientPrivilege):
            return ServerAccessError(f"{where}: {text}: grant the right, or connect as its owner")
        if (error.sqlstate or "")[:2] in ("22", "54"):
            return InvalidDocumentError(f"{where} refuses a value: {text}")
        return StorageError(f"{where}: {text}")

    def _unreachable(self, error: psycopg.Error, text: str) -> AmberError:
        state = error.sqlstate or ""
        is_refused = "FATAL" in str(error) and not any(word in text for word in _PASSING)
        if state[:2] == "28" or state == "3D000" or (not state and is_refused):
            return ServerAccessError(
                f"{self._where} denies access: {text}: correct user, password and database"
            )
        return ServerUnreachableError(
            f"{self._where} cannot be reached: {text}: start the server or correct the URL, and "
            "try again"
        )

    def _text(self, error: psycopg.Error) -> str:
        """The server's message on one line, without its details, which have values."""
        text = " ".join((error.diag.message_primary or str(error)).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_REASON_CHARACTERS_MAX] or type(error).__name__


def is_lost(error: psycopg.Error) -> bool:
    """Whether there is no connection, or none any more."""
    if isinstance(error, errors.QueryCanceled):
        return False
    if error.sqlstate is not None:
        return error.sqlstate[:2] in (*_LOST_CLASSES, "28") or error.sqlstate in ("3D000", "53300")
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def refuse(what: str) -> NoReturn:
    """Raises NotSupportedHereError."""
    raise NotSupportedHereError(
        f"{what} is not there on PostgreSQL yet: docs/remote.md says what is; a database in a "
        "directory, of amberdb.open(), has it"
    )
