"""Types of columns that mean the same in SQLite, MySQL, MariaDB and PostgreSQL.

    type      SQLite    MySQL, MariaDB             PostgreSQL
    Name      TEXT      VARCHAR(480), by bytes     TEXT COLLATE "C"
    LongText  TEXT      LONGTEXT                   TEXT
    Moment    TEXT      DATETIME(6)                TIMESTAMP WITH TIME ZONE
    Json      TEXT      LONGTEXT                   JSONB

Invariants:
- Names are compared by their bytes: case, accents and trailing spaces count. utf8mb4_bin pads with
  spaces, so it is not used.
- A time is a moment to the microsecond in UTC, whatever the time zones of server and connection
  are. PostgreSQL gets and gives it as text: drivers fail on years that a zone shifts to 0.
- A text may have NUL, which PostgreSQL refuses: it is escaped.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Protocol, final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.elements import BindParameter, ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from amberdb.sql.json_text import dumps, loads

NAME_CHARACTERS_MAX: Final = 480
"""Of an id or a name. Keys of InnoDB end at 3,072 bytes, those of PostgreSQL at 2,704."""

_ESCAPE: Final = "\x10"
"""U+0010, data link escape: before itself, and before @ in place of NUL."""


def escaped(text: str) -> str:
    """The text without NUL; unescaped() reverses it."""
    if "\0" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPE * 2).replace("\0", _ESCAPE + "@")


def unescaped(text: str) -> str:
    """The reverse of escaped()."""
    if _ESCAPE not in text:
        return text
    parts = text.split(_ESCAPE * 2)
    return _ESCAPE.join(part.replace(_ESCAPE + "@", "\0") for part in parts)


class _Reader(Protocol):
    def __call__(self, value: Any) -> Any: ...


# Read for each value of each row, so without the layers of process_result_value().


def _text_of(value: str | None) -> str | None:
    return value if value is None or _ESCAPE not in value else unescaped(value)


def _map_of(value: str | bytes | None) -> Any:
    return None if value is None else loads(value)


def _time_of(value: str | None) -> datetime | None:
    if value is None:
        return None
    time = datetime.fromisoformat(value)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _utc_of(value: datetime | None) -> datetime | None:
    return None if value is None else value.replace(tzinfo=UTC)


def is_mysql(dialect: Dialect) -> bool:
    """Whether the server is MySQL or MariaDB."""
    return dialect.name in ("mysql", "mariadb")


class _AsText(UserDefinedType[Any]):
    """A type of PostgreSQL that the driver sees as text."""

    cache_ok = True
    declaration: ClassVar[str]

    def get_col_spec(self, **_: Any) -> str:
        return self.declaration

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return sa.cast(sa.cast(bindvalue, sa.Text()), self)


@final
class _Jsonb(_AsText):
    cache_ok = True
    declaration = "JSONB"

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return sa.cast(colexpr, sa.Text())


@final
class _Timestamp(_AsText):
    """The text is ISO 8601 in UTC."""

    cache_ok = True
    declaration = "TIMESTAMP WITH TIME ZONE"

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        in_utc = sa.func.timezone(sa.literal_column("'UTC'"), colexpr)
        form: ColumnElement[str] = sa.literal_column('\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\'')
        return sa.func.to_char(in_utc, form)


class _Read(TypeDecorator[Any]):
    """A type whose columns are read as its type in PostgreSQL says, and then as it says itself."""

    impl = sa.Text
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        read = super().column_expression(column)
        return column if read is None else sa.type_coerce(read, self)


class _Text(TypeDecorator[str]):
    """Text with its NULs escaped."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escaped(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> _Reader:
        return _text_of


@final
class Name(_Text):
    """An id or a name, compared by its bytes."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Text(collation="C"))
        if is_mysql(dialect):
            is_mariadb = getattr(dialect, "is_mariadb", False)
            collation = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
            return dialect.type_descriptor(
                mysql.VARCHAR(NAME_CHARACTERS_MAX, charset="utf8mb4", collation=collation)
            )
        return dialect.type_descriptor(sa.Text())


@final
class LongText(_Text):
    """A text of any length."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if is_mysql(dialect):
            return dialect.type_descriptor(mysql.LONGTEXT(charset="utf8mb4"))
        return dialect.type_descriptor(sa.Text())


@final
class Json(_Read):
    """A map, as json_text writes it."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_Jsonb())
        if is_mysql(dialect):  # columns of its type JSON end at 32 levels in MariaDB
            return dialect.type_descriptor(mysql.LONGTEXT(charset="utf8mb4"))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else dumps(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> _Reader:
        return _map_of


@final
class Moment(_Read):
    """An aware datetime, which comes back in UTC."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_Timestamp())
        if is_mysql(dialect):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        value = value.astimezone(UTC).replace(tzinfo=None)
        return value if is_mysql(dialect) else value.isoformat("T", "microseconds") + "Z"

    def result_processor(self, dialect: Dialect, coltype: object) -> _Reader:
        return _utc_of if is_mysql(dialect) else _time_of
