"""Errors of SQL databases, told by their codes.

Invariants:
- A message says what to do, and has neither a password nor a row.
- An error that speaks of a value is an InvalidDocumentError, as from every other store: the value
  is refused, and the database is well.
"""

from enum import Enum
from typing import Any, Final, final

from sqlalchemy import exc

from amberdb import AmberError, InvalidDocumentError

REASON_CHARACTERS_MAX: Final = 500


class SqlError(AmberError):
    """A call of an SQL database failed."""


class SqlConfigError(SqlError, ValueError):
    """The URL, the config or the name of a table is wrong."""


class SqlDriverError(SqlError, ImportError):
    """The driver of a database is not installed: the message says which package to install."""


class SqlUnreachableError(SqlError, ConnectionError):
    """The server cannot be reached, or the connection was lost: try again. A write that was under
    way may have been stored; stored again, it is there once."""


class SqlAccessError(SqlError, PermissionError):
    """The server knows no such user, password or database, or the user lacks a right."""


class SqlSchemaError(SqlError):
    """The server is too old, a newer version made the table, or the table is of another program."""


class Cause(Enum):
    """What an error of a driver speaks of."""

    UNREACHABLE = "the server cannot be reached"
    ACCESS = "access was denied"
    CONFLICT = "another writer is in the way"
    FULL = "the server has no connection free"
    VALUE = "a value was refused"
    SCHEMA = "a table or a column is missing"
    OTHER = "the call failed"


_CLASSES: Final = {  # of SQLSTATE, the first two characters
    "08": Cause.UNREACHABLE,
    "57": Cause.UNREACHABLE,
    "22": Cause.VALUE,
    "23": Cause.VALUE,
    "54": Cause.VALUE,
    "28": Cause.ACCESS,
    "P0": Cause.VALUE,  # raised by a trigger
}
_STATES: Final = {
    "53300": Cause.FULL,
    "25006": Cause.ACCESS,  # a replica, or a role that may read alone
    "57014": Cause.OTHER,  # statement_timeout
    "3D000": Cause.ACCESS,
    "42501": Cause.ACCESS,
    "40001": Cause.CONFLICT,
    "40P01": Cause.CONFLICT,
    "55P03": Cause.CONFLICT,
    "42P01": Cause.SCHEMA,
    "42703": Cause.SCHEMA,
}
"""PostgreSQL, Appendix A of its manual."""
_NUMBERS: Final = {
    **dict.fromkeys((1040, 1203, 1226), Cause.FULL),
    **dict.fromkeys((1053, 1077, 1079, 1080, 1927), Cause.UNREACHABLE),
    **dict.fromkeys((2002, 2003, 2006, 2013, 2014, 2055, 4031), Cause.UNREACHABLE),
    **dict.fromkeys((1044, 1045, 1049, 1142, 1143, 1227, 1290, 1698, 1792, 1836), Cause.ACCESS),
    **dict.fromkeys((1205, 1213, 1020), Cause.CONFLICT),
    **dict.fromkeys((1048, 1062, 1153, 1264, 1292, 1366, 1406, 1644), Cause.VALUE),
    **dict.fromkeys((3140, 3819, 4025), Cause.VALUE),
    **dict.fromkeys((1054, 1146), Cause.SCHEMA),
}
"""MySQL and MariaDB, the error reference of their manuals."""
_NAMES: Final = {
    "SQLITE_BUSY": Cause.CONFLICT,
    "SQLITE_LOCKED": Cause.CONFLICT,
    "SQLITE_CANTOPEN": Cause.ACCESS,
    "SQLITE_READONLY": Cause.ACCESS,
    "SQLITE_PERM": Cause.ACCESS,
    "SQLITE_AUTH": Cause.ACCESS,
    "SQLITE_CONSTRAINT": Cause.VALUE,
    "SQLITE_TOOBIG": Cause.VALUE,
    "SQLITE_MISMATCH": Cause.VALUE,
}
"""SQLite, the first two words of a result code."""


def driver_error(error: BaseException) -> Any:
    """The error of the driver inside one of SQLAlchemy."""
    found: Any = error
    while isinstance(found, exc.DBAPIError) and found.orig is not None:
        found = found.orig
    if _code(found) or found.__cause__ is None or isinstance(found, TimeoutError):
        return found
    # The adapters of asynchronous drivers raise errors of their own from those of the driver.
    return found.__cause__


def _code(error: Any) -> str | int | None:
    """The number of MySQL, SQLSTATE, or the name of SQLite."""
    args: tuple[Any, ...] = getattr(error, "args", ())
    if args and isinstance(args[0], int) and not isinstance(error, OSError):
        return args[0]  # some drivers of MySQL have SQLSTATE too, which tells less
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if isinstance(code := getattr(error, name, None), str):
            return code
    return None


def cause_of(error: BaseException) -> Cause:
    """What an error speaks of."""
    own = driver_error(error)
    code = _code(own)
    known: Cause | None = None
    if isinstance(code, int):
        known = _NUMBERS.get(code)
    elif code == "SQLITE_ERROR":  # of all that is wrong with a statement
        known = Cause.SCHEMA if str(own).startswith(("no such table", "no such column")) else None
    elif isinstance(code, str) and code.startswith("SQLITE_"):
        known = _NAMES.get("_".join(code.split("_")[:2]))
    elif isinstance(code, str):
        known = _STATES.get(code) or _CLASSES.get(code[:2])
    if known is None and _is_lost(error, own):
        known = _cause_of_loss(own)
    if (
        known is None
        and isinstance(error, exc.StatementError)
        and not isinstance(error, exc.DBAPIError)
    ):
        known = Cause.VALUE  # of a type that the driver does not take
    return known or Cause.OTHER


def _is_lost(error: BaseException, own: Any) -> bool:
    """Whether the connection is gone, or there is none."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(own, OSError | TimeoutError | EOFError):
        return True
    # psycopg gives no code to a connection that was refused, or that took too long.
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(own).__mro__}
    return "psycopg.OperationalError" in kinds and _code(own) is None


def _cause_of_loss(own: Any) -> Cause:
    """Why there is no connection. psycopg has the server's message alone."""
    text = str(own)
    if any(full in text for full in ("too many", "remaining connection")):
        return Cause.FULL
    is_refused = "FATAL" in text and not any(passing in text for passing in _PASSING)
    return Cause.ACCESS if is_refused else Cause.UNREACHABLE


_PASSING: Final = ("starting up", "shutting down", "recovery", "terminating")


@final
class Reporter:
    """Makes typed errors for one database."""

    __slots__ = ("_is_file", "_secrets", "_where")

    def __init__(self, where: str, secrets: tuple[str, ...] = ()) -> None:
        """`where`: the URL without its password; `secrets`: what no message may have."""
        self._where = where
        self._secrets = secrets
        self._is_file = where.startswith("sqlite")

    def typed(self, error: BaseException) -> AmberError:
        """The error to raise in place of a driver's."""
        if isinstance(error, AmberError):
            return error
        cause = cause_of(error)
        text = self.text(error)
        where = self._where
        if cause is Cause.UNREACHABLE:
            return SqlUnreachableError(
                f"{where} cannot be reached: {text}: start the server or correct the URL, and try "
                "again"
            )
        if cause is Cause.FULL:
            return SqlUnreachableError(
                f"{where} has no connection free: {text}: try again, or let it have more"
            )
        if cause is Cause.ACCESS:
            remedy = "user, password and database, or grant the right"
            if self._is_file:
                remedy = "the path, or the rights of the folder"
            return SqlAccessError(f"{where} denies access: {text}: correct {remedy}")
        if cause is Cause.VALUE:
            return InvalidDocumentError(f"{where} refuses a value: {text}")
        if cause is Cause.SCHEMA:
            return SqlSchemaError(
                f"{where}: {text}: call initialize() first; if a table was changed, restore it"
            )
        if cause is Cause.CONFLICT:
            return SqlError(f"{where} is busy: {text}: try again")
        return SqlError(f"{where}: {text}")

    def text(self, error: BaseException) -> str:
        """The driver's message on one line, without secrets."""
        own = driver_error(error)
        args: Any = getattr(own, "args", ())
        is_numbered = len(args) > 1 and isinstance(args[0], int)  # of MySQL: number, message
        # PostgreSQL's details have the whole row.
        primary = getattr(getattr(own, "diag", own), "message_primary", None)
        primary = primary or getattr(own, "message", None)
        text = str(primary or (args[1] if is_numbered else own)) or type(own).__name__
        if text == TimeoutError.__name__:
            text = "no answer in time"
        text = " ".join(text.split())[:REASON_CHARACTERS_MAX]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
