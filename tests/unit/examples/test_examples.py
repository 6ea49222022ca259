"""Every example, and every piece of Python in a README, runs as a script, twice in the same place,
and says nothing on stderr."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import slices
from support.databases import audited

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PIECES = {
    f"{path.name}-{number}": piece
    for path in sorted(ROOT.glob("README*.md"))
    for number, piece in enumerate(
        re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S), 1
    )
}
LINES_MAX = 60

pytestmark = pytest.mark.slow  # each starts processes


def test_examples_are_found() -> None:
    assert "quickstart.py" in {path.name for path in EXAMPLES}
    assert len(PIECES) > 1


@pytest.mark.sliced
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_runs_again(example: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path)
    if slices.IS_WHOLE or example.stem == "quickstart":
        assert run(example, tmp_path)


@pytest.mark.parametrize("name", slices.parameters(2, PIECES))
def test_a_piece_of_a_readme_runs(name: str, tmp_path: Path) -> None:
    script = tmp_path / "piece.py"
    script.write_text(PIECES[name], encoding="utf-8")
    for _ in range(2):
        run(script, tmp_path)


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_pieces_of_a_readme_share_one_database(page: str, tmp_path: Path) -> None:
    """A program has them all, one after the other."""
    pieces = [piece for name, piece in PIECES.items() if name.rpartition("-")[0] == page]
    opened = re.compile(r'"\w+\.amber"')
    assert all(len(opened.findall(piece)) == 1 for piece in pieces)
    script = tmp_path / "all.py"
    script.write_text("\n".join(opened.sub('"one.amber"', piece) for piece in pieces), "utf-8")
    for _ in range(2):
        run(script, tmp_path)
    with audited(tmp_path / "one.amber") as db:
        assert {"note", "profile", "chat", "sessions", "agent_event"} <= set(db.collections())


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
