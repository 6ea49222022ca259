"""The URL of a database on a server: what libpq is told, and what a message may say of it.

    postgresql://user:password@host:5432/database?sslmode=require&schema=app&connections=8
    postgresql://user:password@first:5432,second:5432/database      whichever takes writes

Invariants:
- A password is in `conninfo` and `secrets` alone. No message has it.
- Options of libpq are passed on to it; `schema`, `connections` and `prepared_statements` are
  AmberDB's own.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from amberdb._errors import OpenError

_SCHEMES: Final = ("postgresql", "postgres")
SCHEMA: Final = "amberdb"
"""The schema of a database whose URL names none."""
CONNECTIONS: Final = 8
POOLER_PORT: Final = 6543
"""Of a pooler of transactions, by convention: a prepared statement would be of one connection."""
_CONNECT_S: Final = 10
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SECRET_OPTIONS: Final = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is."""

    conninfo: str = field(repr=False)
    schema: str
    where: str
    """The URL without its password and options."""
    secrets: tuple[str, ...] = field(repr=False)
    connections: int
    """The most connections that this process has open."""
    prepares: bool
    """Whether statements are prepared on the server."""


def address_of(url: str) -> Address:
    """The address in a URL. Raises OpenError."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=False))
    except ValueError:  # its message may have the password
        raise _invalid() from None
    if parts.scheme not in _SCHEMES:
        raise _invalid()
    schema = options.pop("schema", SCHEMA)
    if _NAME.fullmatch(schema) is None or schema.startswith("pg_"):
        raise OpenError(
            f"schema={schema!r} in the URL: give 1 to 63 of the characters a-z, 0-9 and _, and "
            "nothing that begins with pg_"
        )
    connections = options.pop("connections", str(CONNECTIONS))
    if not connections.isdecimal() or not 0 < int(connections) < 1000:
        raise OpenError(f"connections={connections!r} in the URL: give a number from 1 to 999")
    prepared = options.pop("prepared_statements", None)
    if prepared not in ("true", "false", None):
        raise OpenError(f"prepared_statements={prepared!r} in the URL: give true or false")
    bare = parts._replace(query=urlencode(options, quote_via=quote)).geturl()
    try:
        known: dict[str, Any] = {**conninfo_to_dict(bare)}
        known = {"connect_timeout": _CONNECT_S, "application_name": "amberdb", **known}
        hosts, ports = (str(known.get(name, "")).split(",") for name in ("host", "port"))
        if not all(port.isdecimal() or not port for port in ports):
            raise _invalid()
        if len(hosts) > 1:  # without it a replica would be taken, which refuses writes
            known.setdefault("target_session_attrs", "read-write")
        conninfo = make_conninfo("", **known)
    except psycopg.Error:
        raise _invalid() from None
    secrets = [str(known[name]) for name in _SECRET_OPTIONS if known.get(name)]
    secrets += [quote(secret, safe="") for secret in secrets]
    if prepared is None:
        prepared = "false" if str(POOLER_PORT) in ports else "true"
    places = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
    host = ",".join(f"{host}:{port}" if port else host for host, port in places)
    return Address(
        conninfo=conninfo,
        schema=schema,
        where=f"postgresql://{host}/{unquote(parts.path.lstrip('/'))}?schema={schema}",
        secrets=tuple(dict.fromkeys(secrets)),
        connections=int(connections),
        prepares=prepared == "true",
    )


def _invalid() -> OpenError:
    return OpenError(
        "this is no URL of a PostgreSQL database: write "
        "postgresql://user:password@host:port/database?schema=name, with %40 in place of @ and %2F "
        "in place of / within the password, and options of libpq alone behind the ?"
    )
