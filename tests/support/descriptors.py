"""LMDB's own writes made to fail: another device in the place of its open file. Linux only.

Invariants:
- LMDB writes pages through one descriptor and meta pages through a second one, which is opened
  with O_DSYNC; what it reads it reads through its map, which stays as it is.
- /dev/full refuses writes. /dev/null takes them and keeps none, and cannot be synced: as a sync
  that fails and has dropped the pages.
"""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path, device: str, *, meta: bool) -> Generator[None]:
    """For the block, what LMDB writes to `path` goes to the device: pages, or meta pages."""
    (descriptor,) = (fd for fd in _descriptors(path) if _is_meta(fd) == meta)
    kept = os.dup(descriptor)
    other = os.open(device, os.O_RDWR)
    try:
        os.dup2(other, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(other)


def _descriptors(path: Path) -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                yield int(name)
        except OSError:
            pass  # that of the listing itself


def _is_meta(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DSYNC)
