"""A log in its own directory, on a file system that fails on demand."""

from pathlib import Path

import pytest

from support.faulty_fs import FaultyFileSystem
from unit.wal.helpers import LogDirectory


@pytest.fixture
def fs() -> FaultyFileSystem:
    return FaultyFileSystem()


@pytest.fixture
def directory(fs: FaultyFileSystem, tmp_path: Path) -> LogDirectory:
    return LogDirectory(fs, str(tmp_path))
