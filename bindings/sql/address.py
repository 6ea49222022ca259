"""Addresses of SQL databases: a URL, or a map of the keys that programs already have.

    sqlite:///agent_memory.db       mysql://user:password@host/database
    sqlite:///:memory:              postgresql://user:password@host/database?sslmode=require

A URL may name the driver ("postgresql+psycopg://"); otherwise the first of these that is installed
is taken: asyncpg, psycopg; aiomysql, asyncmy; aiosqlite.

Invariants:
- Nothing is connected to. A password is in no message, and not in `shown`.
- Prepared statements are off where a pooler may give each transaction another connection: on port
  6543, that of Supabase's transaction pooler, with `pgbouncer=true` as its dashboard writes it, or
  with `prepared_statements=false`.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final, Literal, TypeAlias, TypedDict, final
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy import exc

from amberdb.sql.errors import SqlConfigError, SqlDriverError

Kind: TypeAlias = Literal["sqlite", "mysql", "postgresql"]

CONNECT_S: Final = 10
"""How long a call waits for a connection."""
BUSY_S: Final = 30.0
"""How long a call waits for other writers."""
ANSWER_S: Final = 120
"""How long a blocking call waits for an answer of MySQL: its driver has no keepalive."""
POOLER_PORT: Final = 6543

_KINDS: Final[dict[str, Kind]] = {
    "sqlite": "sqlite",
    "mysql": "mysql",
    "mariadb": "mysql",
    "postgresql": "postgresql",
    "postgres": "postgresql",
}
_ASYNC: Final[dict[Kind, tuple[str, ...]]] = {
    "sqlite": ("aiosqlite",),
    "mysql": ("aiomysql", "asyncmy"),
    "postgresql": ("asyncpg", "psycopg"),
}
_BLOCKING: Final[dict[Kind, str]] = {
    "sqlite": "pysqlite",
    "mysql": "pymysql",
    "postgresql": "psycopg",
}
_MODULES: Final = {"pysqlite": "sqlite3"}
_PACKAGES: Final = {"psycopg": '"psycopg[binary]"'}
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
"""Otherwise a server may be set to cut a value that is too long."""


class ServerConfig(TypedDict, total=False):
    """The address of a server. What is missing is as the server's own programs have it."""

    host: str
    port: int
    user: str
    password: str
    database: str


class SQLiteConfig(TypedDict, total=False):
    """A file, or ":memory:" for a database that ends with the store; `wal_mode` is True unless it
    is given."""

    db_path: str
    wal_mode: bool


@final
@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, and how to connect."""

    url: sa.URL
    kind: Kind
    connect_args: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_whole: bool = False
    """Whether each call is a transaction, also one of a single statement: asyncpg prepares a
    statement in one step and executes it in another, and a pooler may give each step another
    connection."""

    @property
    def shown(self) -> str:
        """The address without its password and options."""
        if self.kind == "sqlite":
            return f"sqlite:///{self.url.database or ':memory:'}"
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def is_in_memory(self) -> bool:
        """Whether the database is in memory, and ends with its connection."""
        return self.kind == "sqlite" and self.url.database in (None, "", ":memory:")


def address_of(url: str | sa.URL, kinds: tuple[Kind, ...], *, blocking: bool = False) -> Address:
    """The address of a URL of one of these kinds, for an asynchronous driver or a blocking one.
    Raises SqlConfigError, SqlDriverError."""
    parsed = _parsed(url)
    name, _, driver = parsed.drivername.partition("+")
    kind = _KINDS.get(name)
    if kind not in kinds:
        raise SqlConfigError(
            f"the URL begins with {name}:// and must be one of {', '.join(kinds)}, as in "
            f"{kinds[-1]}://user:password@host/database"
        )
    _check_server(parsed)
    secrets = (parsed.password,) if parsed.password else ()
    driver = _driver(kind, driver, blocking=blocking)
    query = {key: value for key, value in parsed.query.items() if isinstance(value, str)}
    bare = sa.URL.create(
        f"{kind}+{driver}",
        username=parsed.username,
        password=parsed.password,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
    )
    if kind == "postgresql":
        return _postgresql(bare, driver, query, secrets)
    if kind == "mysql":
        return _mysql(bare, query, secrets)
    _none_left(query)
    return Address(bare, kind, {"timeout": BUSY_S})


def url_of(kind: Kind, config: Mapping[str, Any]) -> sa.URL:
    """The URL of a config. Raises SqlConfigError."""
    known = SQLiteConfig.__annotations__ if kind == "sqlite" else ServerConfig.__annotations__
    _check_keys(config, tuple(known))
    if kind == "sqlite":
        path = config.get("db_path", "agent_memory.db")
        return sa.URL.create("sqlite", database=str(path))
    for name in ("host", "user", "password", "database"):
        if not isinstance(config.get(name, ""), str | None):  # not shown: it may be the password
            raise SqlConfigError(f"{name} must be a str in the config")
    port = config.get("port")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int)):
        raise SqlConfigError(f"port must be a number, not a {type(port).__name__}")
    defaults = {"mysql": "root", "postgresql": "postgres"}
    return sa.URL.create(
        kind,
        username=config.get("user", defaults[kind]),
        password=config.get("password"),
        host=config.get("host", "localhost"),
        port=port,
        database=config.get("database", "agent_memory"),
    )


def _check_server(url: sa.URL) -> None:
    """Raises SqlConfigError for what cannot be a host or a port."""
    if url.host is not None and "@" in url.host:  # the end of the password: not shown
        raise SqlConfigError("the host has an @ in the URL: write %40 for an @ within the password")
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise SqlConfigError(f"the port must be from 1 to 65535, not {url.port}")


def _check_keys(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SqlConfigError(f"a config is a map of {', '.join(known)}: give a URL as the address")
    for key in given:
        if key not in known:
            raise SqlConfigError(f"unknown key {key!r}: the keys are {', '.join(known)}")


def _parsed(url: object) -> sa.URL:
    try:
        if isinstance(url, str | sa.URL):
            return sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        pass  # its message may have the password
    raise SqlConfigError(
        "this is no URL of a database: write postgresql://user:password@host:port/database, with "
        "%40 in place of @ and %2F in place of / within the password"
    )


def _driver(kind: Kind, named: str, *, blocking: bool) -> str:
    """The driver to use. A blocking caller gets the blocking driver of the kind."""
    candidates = (_BLOCKING[kind],) if blocking else _ASYNC[kind]
    if named and not blocking:
        if named not in candidates:
            raise SqlConfigError(
                f"{named} is no asynchronous driver of {kind}: name {' or '.join(candidates)}"
            )
        candidates = (named,)
    for name in candidates:
        if find_spec(_MODULES.get(name, name)) is not None:
            return name
    package = _PACKAGES.get(candidates[0], candidates[0])
    raise SqlDriverError(f"{kind} needs a driver: pip install {package}")


def _none_left(query: Mapping[str, str]) -> None:
    """Raises SqlConfigError when options were not taken."""
    for key in query:
        raise SqlConfigError(f"unknown option {key!r} in the URL: leave it out")


def _is_on(query: dict[str, str], key: str, default: bool) -> bool:
    text = query.pop(key, str(default)).lower()
    if text not in ("true", "false"):
        raise SqlConfigError(f"{key} must be true or false in the URL, not {text!r}")
    return text == "true"


def _mysql(url: sa.URL, query: dict[str, str], secrets: tuple[str, ...]) -> Address:
    connect: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_S,
        "init_command": f"SET SESSION sql_mode = '{_SQL_MODE}'",
    }
    if url.get_driver_name() == _BLOCKING["mysql"]:
        connect |= {"read_timeout": ANSWER_S, "write_timeout": ANSWER_S}
    query.pop("charset", None)
    if socket := query.pop("unix_socket", None):
        connect["unix_socket"] = socket
    if (mode := query.pop("ssl-mode", query.pop("sslmode", None))) is not None:
        context = _ssl_context(mode.lower().replace("_", "-"), query.pop("ssl-ca", None))
        if context is not None:
            connect["ssl"] = context
    _none_left(query)
    return Address(url, "mysql", connect, secrets)


def _postgresql(
    url: sa.URL, driver: str, query: dict[str, str], secrets: tuple[str, ...]
) -> Address:
    is_pooled = _is_on(query, "pgbouncer", default=url.port == POOLER_PORT)
    prepares = _is_on(query, "prepared_statements", default=not is_pooled)
    mode, root = query.pop("sslmode", None), query.pop("sslrootcert", None)
    if mode is not None and mode not in _SSL_MODES:
        raise SqlConfigError(f"sslmode must be one of {', '.join(_SSL_MODES)}, not {mode!r}")
    if socket := query.pop("host", None):
        url = url.update_query_dict({"host": socket})
    name = query.pop("application_name", "amberdb")
    query.pop("connect_timeout", None)
    _none_left(query)
    connect: dict[str, Any]
    if driver == "asyncpg":
        connect = {"timeout": CONNECT_S, "server_settings": {"application_name": name}}
        if mode is not None:
            connect["ssl"] = mode if root is None else _ssl_context(mode, root)
        if not prepares:
            connect["statement_cache_size"] = 0
            connect["prepared_statement_cache_size"] = 0
            connect["prepared_statement_name_func"] = lambda: f"amberdb_{uuid4().hex}"
    else:
        connect = {"connect_timeout": CONNECT_S, "application_name": name}
        if mode is not None:
            connect["sslmode"] = mode
        if root is not None:
            connect["sslrootcert"] = root
        if not prepares:
            connect["prepare_threshold"] = None
    is_whole = driver == "asyncpg" and not prepares
    return Address(url, "postgresql", connect, secrets, is_whole)


def _ssl_context(mode: str, root: str | None) -> ssl.SSLContext | None:
    """The context of a mode of libpq, or of MySQL. Raises SqlConfigError."""
    if mode in ("disable", "disabled", "allow", "prefer", "preferred"):
        return None
    try:
        context = ssl.create_default_context(cafile=root)
    except OSError as error:
        raise SqlConfigError(f"the certificate {root!r} cannot be read: {error}") from None
    context.check_hostname = mode in ("verify-full", "verify-identity")
    if mode in ("require", "required"):
        context.verify_mode = ssl.CERT_NONE
    return context
