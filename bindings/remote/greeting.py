"""How a connection begins: each end tells what the other one has to know, or refuses.

    hello     {"protocols": [number ...], "container": number, "options": {name: text}}
    answer    {"value": {"protocol": number}}, or an error

Invariants:
- Both ends are of one user, in one container, and speak one protocol: the newest that both know.
- An option that two processes give has one value.
"""

import os
from typing import Any, Final

from amberdb._errors import OpenError, OptionsDifferError
from amberdb.engine.options import OpenOptions
from amberdb.remote import place
from amberdb.remote.connection import Connection
from amberdb.remote.messages import LeaderGoneError, result_of

PROTOCOLS: Final = (2,)
HELLO_S: Final = 10.0
_OWN: Final = frozenset(
    {
        *("sync", "busy_timeout_ms", "background", "map_bytes", "clock", "fs"),
        *("refresh_interval_ms", "snapshot_max_age_ms", "snapshots_max"),
        *("query_depth_max", "query_operators_max", "query_bytes_max", "query_terms_max"),
        *("diversity_rows_max", "snippet_characters_max"),
    }
)
"""Options that each process may have of its own: they are of its calls, or of its reads."""


def hello_of(settings: OpenOptions) -> dict[str, Any]:
    """What a process tells: `settings` are the options that it gives."""
    return {
        "protocols": list(PROTOCOLS),
        "container": _container(),
        "options": {name: repr(value) for name, value in settings.items() if name not in _OWN},
    }


def check_hello(theirs: dict[str, Any], mine: dict[str, Any], path: str) -> int:
    """The protocol to speak. Raises OpenError, and OptionsDifferError."""
    known: Any = theirs.get("protocols") or []
    common = [number for number in mine["protocols"] if number in known]
    if not common:
        raise OpenError(
            f"the process that leads speaks protocol {max(PROTOCOLS)}: use one version of amberdb "
            "in all processes",
            path=path,
        )
    if theirs.get("container") != mine["container"]:
        raise OpenError(
            f"{path} is shared by a process in another container: share it within one, since "
            "process ids are those of a container",
            path=path,
        )
    for name, value in theirs.get("options", {}).items():
        if value != mine["options"].get(name, value):
            raise OptionsDifferError(
                f"{path} is shared with {name}={mine['options'][name]}, not {value}: give the same "
                "in all processes",
                path=path,
                option=name,
            )
    protocol: int = max(common)
    return protocol


def greeted(path: str, hello: dict[str, Any], wait_s: float) -> Connection:
    """A connection that has begun; each message waits for `wait_s`. Raises LeaderGoneError,
    PermissionError, TimeoutError, and what the leader refuses it with."""
    try:
        connection = Connection(place.connected(path))
    except PermissionError:
        raise
    except OSError as error:
        raise LeaderGoneError(str(error)) from error
    try:
        connection.settimeout(wait_s)
        connection.send(hello)
        result_of(connection.receive())
        return connection
    except BaseException:
        connection.close()
        raise


def is_served(path: str, hello: dict[str, Any]) -> bool:
    """Whether a leader takes connections; one that is stopped does, later. Raises PermissionError,
    OpenError, OptionsDifferError."""
    try:
        greeted(path, hello, HELLO_S).close()
    except TimeoutError:
        return True
    except LeaderGoneError:
        return False
    return True


def _container() -> int:
    """Identifies the namespace of this process's id."""
    return os.stat("/proc/self/ns/pid").st_ino
