"""Every example runs as a script, twice in the same place, and says nothing on stderr."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.py"))
LINES_MAX = 60


def test_examples_are_found() -> None:
    assert "quickstart.py" in {path.name for path in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_runs_again(example: Path, tmp_path: Path) -> None:
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-W", "error", str(example)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        assert ran.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(example: Path) -> None:
    assert example.read_text(encoding="utf-8").count("\n") < LINES_MAX
