"""Every example, and every piece of Python in a README, runs as a script, twice in the same place,
and says nothing on stderr; what a README shows below a piece is what it prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import slices
from support.databases import audited

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PIECES = [
    pytest.param(piece, output, id=f"{path.name}-{number}")
    for path in sorted(ROOT.glob("README*.md"))
    for number, (piece, output) in enumerate(
        re.findall(
            r"^```python\n(.*?)^```$(?:\n+```\n(.*?)^```$)?",
            path.read_text(encoding="utf-8"),
            re.M | re.S,
        ),
        1,
    )
]
LINES_MAX = 60

pytestmark = pytest.mark.slow  # each starts processes


def test_examples_are_found() -> None:
    assert "quickstart.py" in {path.name for path in EXAMPLES}
    assert len(PIECES) >= 2


@pytest.mark.sliced
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_runs_again(example: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path)
    if slices.IS_WHOLE or example.stem == "quickstart":
        assert run(example, tmp_path)


@pytest.mark.sliced
@pytest.mark.parametrize(("piece", "output"), PIECES)
def test_a_piece_of_a_readme_prints_what_is_below_it(
    piece: str, output: str, tmp_path: Path
) -> None:
    script = tmp_path / "piece.py"
    script.write_text(piece, encoding="utf-8")
    for _ in range(slices.size(2, 1)):
        assert run(script, tmp_path) == output
    (made,) = tmp_path.glob("*.amber")
    with audited(made) as db:
        assert db.collections()


def run(script: Path, folder: Path) -> str:
    """What it says."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(example: Path) -> None:
    assert example.read_text(encoding="utf-8").count("\n") < LINES_MAX
