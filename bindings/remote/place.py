"""The socket of a leader: a file in the directory of the database.

Invariants:
- Whoever holds the lock of the database may remove the socket of a leader before it, and makes its
  own. It has mode 0600, and both ends check that the other one is of the same user.
- The length of a path does not matter: the socket is reached through a descriptor of its directory.
"""

import os
import re
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from amberdb._errors import OpenError
from amberdb.engine.storage.directory import SOCKET

BACKLOG: Final = 128
MOUNTS: Final = "/proc/self/mountinfo"
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_NETWORKS: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "glusterfs", "davfs"),
        *("sshfs", "s3fs", "rclone", "gcsfuse", "gpfs", "beegfs", "ocfs2", "gfs2", "orangefs"),
    }
)


def network_of(path: str | os.PathLike[str]) -> str | None:
    """The network mount that a path is on, as its kind and place; None for a local disk. On a
    network neither the lock nor LMDB's pages are shared between machines."""
    real = os.path.realpath(path)
    found, kind = "", ""
    with open(MOUNTS) as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), left.split(" ")[4])
            if len(point) >= len(found) and os.path.commonpath([point, real]) == point:
                found, kind = point, right.split(" ")[0]
    return f"{kind} at {found}" if kind.removeprefix("fuse.") in _NETWORKS else None


def listening(path: str) -> socket.socket:
    """The socket of a new leader, which holds the lock. Raises OpenError where there can be none,
    as on a network mount."""
    served = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove(path)
        with _short(path) as short:
            served.bind(short)
        os.chmod(os.path.join(path, SOCKET), 0o600)
        served.listen(BACKLOG)  # until then nobody can connect
        return served
    except OSError as error:
        served.close()
        raise OpenError(
            f"{path}: no socket can be made there ({error.strerror or error}): share a database on "
            "a local disk",
            path=path,
        ) from error


def connected(path: str) -> socket.socket:
    """A connection to the leader. Raises OSError where nobody serves."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as short:
            made.connect(short)
        check_peer(made)
        return made
    except BaseException:
        made.close()
        raise


def check_peer(connection: socket.socket) -> None:
    """Raises PermissionError unless the other end is of the same user."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    user = int.from_bytes(peer[4:8], sys.byteorder)
    if user != os.geteuid():
        raise PermissionError(f"the other end is of user {user}")


def remove(path: str) -> None:
    """Removes the socket of a leader that ends, while it still holds the lock."""
    try:
        os.unlink(os.path.join(path, SOCKET))
    except FileNotFoundError:
        pass


@contextmanager
def _short(path: str) -> Generator[str]:
    """A path of the socket that fits into an address."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET}"
    finally:
        os.close(directory)
