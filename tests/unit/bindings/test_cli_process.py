"""The command line as a process: without its extra, behind a pipe, beside another process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import amberdb

MODULE = [sys.executable, "-m", "amberdb.cli"]

WITHOUT = """
import sys
sys.modules[{name!r}] = None  # import now raises ModuleNotFoundError
from amberdb.cli.__main__ import main
sys.argv = ["amberdb", "info", "x"]
main()
"""


def run(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MODULE, *arguments],
        input=input,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},  # a terminal that knows no UTF-8
    )


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_without_the_extra_main_says_what_to_install(name: str) -> None:
    code = WITHOUT.format(name=name)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert 'pip install "amberdb[cli]"' in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def test_import_of_the_package_leaves_the_extra_alone() -> None:
    code = "import sys, amberdb, amberdb.cli.__main__; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "amberdb" in loaded
    assert not loaded & {"typer", "rich", "click"}


def test_module_runs_and_speaks_utf8_everywhere(tmp_path: Path) -> None:
    path = str(tmp_path / "t.amber")
    ran = run("put", path, "x", input='{"id": "\u4f60\u597d"}')
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\u4f60\u597d\n", "")
    ran = run("find", path, "x", "--json")
    assert json.loads(ran.stdout)["documents"] == [{"id": "\u4f60\u597d"}]


def test_reader_that_leaves_ends_the_export_quietly(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path) as db:
        db.collection("x").put_many({"text": "x" * 1000} for _ in range(1000))
    with subprocess.Popen(
        [*MODULE, "export", str(path), "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith(b"{")
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_other_process_is_told_who_has_the_database(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path):
        ran = run("compact", str(path))
    assert ran.returncode == 3
    assert str(os.getpid()) in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("error: ")
