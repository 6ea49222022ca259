"""Stores of events and a sink of chat turns in SQL databases, with the extra `sql`: docs/sql.md."""

try:
    import sqlalchemy as _  # noqa: F401
except ImportError as error:
    raise ImportError('amberdb.sql needs SQLAlchemy: pip install "amberdb[sql]"') from error

from amberdb.sql.address import (
    ServerConfig,
    SQLiteConfig,
)
from amberdb.sql.errors import (
    SqlAccessError,
    SqlConfigError,
    SqlDriverError,
    SqlError,
    SqlSchemaError,
    SqlUnreachableError,
)
from amberdb.sql.events import (
    MySQLEventStore,
    PostgreSQLEventStore,
    SQLiteEventStore,
)
from amberdb.sql.sink import (
    SqlSink,
)

__all__ = [
    "MySQLEventStore",
    "PostgreSQLEventStore",
    "SQLiteEventStore",
    "SqlSink",
    "SQLiteConfig",
    "ServerConfig",
    "SqlAccessError",
    "SqlConfigError",
    "SqlDriverError",
    "SqlError",
    "SqlSchemaError",
    "SqlUnreachableError",
]
