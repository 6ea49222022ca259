"""Processes of database servers: private directories, ports, start, stop, kill, and nothing left.

Invariants:
- Everything of one Python process is below one `home()`. A guard, a shell that reads a pipe of
  ours, ends what runs there and removes it when this process ends, in whatever way.
- A server is signalled by its pid alone, and only until we have waited for it.
- Servers run as `nobody` when we are root, since PostgreSQL and PgBouncer refuse root; they own
  their directories, mode 0700.
- Linux alone: children of a server are found in /proc.
"""

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NoReturn, TypedDict

import pytest

HOST: Final = "127.0.0.1"
START_S: Final = 60.0
STOP_S: Final = 20.0
_POLL_S: Final = 0.005
_LOG_LINES: Final = 60
_IPC_RMID: Final = 0

# A pid that has passed to another process does not work below our directory.
_GUARD: Final = """
cat >/dev/null
end() {
    for file in "$0"/*/pid; do
        pid=$(cat "$file") && case $(readlink /proc/"$pid"/cwd) in
            "$0"/*) kill -"$1" "$pid"; found=yes ;;
        esac
    done
}
found=
end QUIT
[ -z "$found" ] || { sleep 2; end KILL; }
rm -rf -- "$0"
"""


class ServerError(RuntimeError):
    """A server that does not start or stop, or that refuses a statement."""


class Identity(TypedDict, total=False):
    """Who runs a server, as arguments of subprocess; empty when we are not root."""

    user: int
    group: int
    extra_groups: list[int]


def missing(reason: str) -> NoReturn:
    """Skips the test, but fails it with CI=true: there every server has to be tested."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, package: str) -> Path:
    """Its path, also where /usr/sbin is not in PATH."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    found = shutil.which(name, path=places)
    return Path(found) if found else missing(f"no {name} here: install Debian's {package}")


# -- directories -------------------------------------------------------------------------------


_guards: Final[list["subprocess.Popen[bytes]"]] = []


@cache
def home() -> Path:
    """The directory of all servers of this process, beside those of pytest: `nobody` cannot enter
    them, and their paths are too long for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="servers-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    path.chmod(0o711)
    end_of_guard, _ = os.pipe()  # ours stays open until this process ends
    _guards.append(
        subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(path)],
            stdin=end_of_guard,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the terminal is not for it
        )
    )
    os.close(end_of_guard)
    return path


def identity() -> Identity:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    """Makes the user of the servers own a tree."""
    who = identity()
    if "user" in who and "group" in who:
        for place in (path, *path.rglob("*")):
            os.chown(place, who["user"], who["group"], follow_symlinks=False)


def private_directory(name: str) -> Path:
    """A new one below `home()`."""
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home()))
    give(path)
    return path


@cache
def readable(install: Path, executable: str) -> Path:
    """The install itself; a copy, made once, if the servers' user cannot run this program of it:
    a checkout below /root is closed to `nobody`."""
    try:
        subprocess.run(
            [install / executable, "--version"], check=True, capture_output=True, **identity()
        )
    except (PermissionError, subprocess.CalledProcessError):
        copy = home() / install.name
        shutil.copytree(install, copy, symlinks=True)
        give(copy)
        return copy
    return install


# -- processes ---------------------------------------------------------------------------------


class ServerProcess:
    """One server, which can be started again and again in its directory, with one port."""

    def __init__(
        self,
        directory: Path,
        command: Callable[[int], Sequence[str | Path]],
        is_ready: Callable[[int, int], bool],
        stop_signal: signal.Signals,
    ) -> None:
        """`command` is of a port; `is_ready` is asked with port and pid."""
        self.directory = directory
        self.port = free_port()
        self._command = command
        self._is_ready = is_ready
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._pid_file = directory / "pid"  # for the guard

    @property
    def pid(self) -> int:
        """Of the last start."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The server and its children."""
        return [self.pid, *children(self.pid)]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it answers; raises ServerError with its log."""
        assert not self.is_running
        log = self.directory / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(self.port),
                cwd=self.directory,
                env=environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt from the terminal is for the tests alone
                **identity(),
            )
        try:
            self._pid_file.write_text(str(self.pid))
            ready = wait_until(
                lambda: not self.is_running or self._is_ready(self.port, self.pid), START_S
            )
            if not ready or not self.is_running:
                lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                raise ServerError("\n".join((f"{self.directory.name} did not start:", *lines)))
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shuts it down in order, and kills it if it does not."""
        if self._process is not None and self.is_running:
            self._process.send_signal(self._stop_signal)
            self._process.send_signal(signal.SIGCONT)  # a test may have stopped it with SIGSTOP
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                raise ServerError(f"{self.directory.name} did not stop") from None
            finally:
                self.kill()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL to the server and its children, without a chance to tidy up. It is stopped
        first, so that it neither forks nor waits for a child whose pid is looked at."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGSTOP)
            wait_until(lambda: state(self.pid) in {"T", "Z", ""}, STOP_S)
            below = children(self.pid)
            for pid in below:
                os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            assert wait_until(lambda: not any(map(is_alive, below)), STOP_S), below
        self._pid_file.unlink(missing_ok=True)


def environment(directory: Path) -> dict[str, str]:
    """Nothing of ours: PGHOST or a ~/.my.cnf would lead a client elsewhere."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(directory)}


def run(directory: Path, *command: str | Path, text: str = "", as_server: bool = False) -> str:
    """What a program writes that is given a text; ServerError with what it complains of."""
    who = identity() if as_server else Identity()
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment(directory),
        check=False,
        **who,
    )
    if done.returncode:
        raise ServerError(f"{Path(command[0]).name}: {done.stderr or done.stdout}".strip())
    return done.stdout.removesuffix("\n")


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Whether it has come true in time. It is asked again and again: none of the servers tells
    us by itself when it is ready."""
    end = time.monotonic() + limit_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(_POLL_S)
    return True


def accepts(port: int) -> bool:
    """Whether somebody listens at this port of loopback."""
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


def greets(path: Path) -> bool:
    """Whether a server says something to whoever connects to its Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            return bool(client.recv(1))
        except OSError:
            return False


# Below the ports that connections get by themselves: nobody takes one between kill and restart.
_ports: Final[Iterator[int]] = itertools.count(20_000 + os.getpid() * 101 % 10_000)


def free_port() -> int:
    """One that no other server of the tests is given."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("endless")


def release_shared_memory(postmaster_pid: Path) -> None:
    """PostgreSQL leaves this file, and the segment whose id is in it, when it is killed."""
    if postmaster_pid.exists():
        _, segment = postmaster_pid.read_text().split("\n")[6].split()
        ctypes.CDLL(None).shmctl(int(segment), _IPC_RMID, None)


# -- /proc -------------------------------------------------------------------------------------


def _status(pid: int) -> tuple[str, int]:
    """State and parent; "" when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def state(pid: int) -> str:
    """As in /proc: R runs, S sleeps, T is stopped, Z has ended and is not waited for."""
    return _status(pid)[0]


def is_alive(pid: int) -> bool:
    return state(pid) not in {"Z", "X", ""}


def children(pid: int) -> list[int]:
    """Those alive."""
    every = (int(place.name) for place in Path("/proc").iterdir() if place.name.isdecimal())
    return [each for each in every if _status(each)[1] == pid and is_alive(each)]
