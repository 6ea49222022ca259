"""The memory server through the client of the SDK, in both generations of the protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import amberdb

TESTS = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # each starts a process


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_of_the_sdk_finds_everything(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "t.amber"
    ran = subprocess.run(
        [sys.executable, "-m", "support.mcp_session", mode, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    with amberdb.open(path) as db:
        assert db.check().ok


def test_importing_the_package_loads_no_sdk() -> None:
    code = "import sys, amberdb.mcp, amberdb.mcp.memory_tools; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"mcp", "mcp_types", "uvicorn", "starlette", "pydantic"}
