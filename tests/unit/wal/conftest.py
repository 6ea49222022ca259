"""Every test of the log runs on both faces of the real file system."""

from pathlib import Path

import pytest

from amberdb._fs import OsFileSystem
from support.faulty_fs import FaultyFileSystem
from unit.wal.helpers import LogDirectory


@pytest.fixture(params=[False, True], ids=["native", "portable"])
def fs(request: pytest.FixtureRequest) -> FaultyFileSystem:
    return FaultyFileSystem(OsFileSystem(portable=request.param))


@pytest.fixture
def directory(fs: FaultyFileSystem, tmp_path: Path) -> LogDirectory:
    return LogDirectory(fs, str(tmp_path))
