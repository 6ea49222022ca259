"""The tutorials run from their first sample to the last, in one empty directory, and print what
they show.

A block ```python runs in the names of those before it; one whose first line is `# <name>.py` is
saved under that name instead. A block ```sh runs in a shell. A block ```text is what the block
before it printed. `<!-- not run: the reason -->` in front of a block leaves it out.
"""

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database

ROOT = Path(__file__).parents[3]
PAGES = ("docs/tutorial.md", "docs/zh/tutorial.md")

_BLOCK = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n)?```(?P<kind>python|sh|text)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
_FILE = re.compile(r"# (\w+\.py)\n")


def run_page(text: str) -> int:
    """Runs the blocks of a page in the working directory; returns how many outputs were compared.

    Raises AssertionError with the block when one printed something else."""
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        return _run_blocks(text, names)
    finally:
        for left_open in [each for each in names.values() if isinstance(each, Database)]:
            left_open.close()


def _run_blocks(text: str, names: dict[str, Any]) -> int:
    printed, before, compared = "", "", 0
    for block in _BLOCK.finditer(text):
        if block["mark"]:
            continue
        if block["kind"] == "text":
            assert printed == block["code"], f"after\n{before}"
            compared += 1
            continue
        before, printed = block["code"], _output_of(block["kind"], block["code"], names)
    return compared


def _output_of(kind: str, code: str, names: dict[str, Any]) -> str:
    if kind == "sh":
        return _shell(code)
    if named := _FILE.match(code):
        Path(named[1]).write_text(code, encoding="utf-8")
        return ""
    with redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    return out.getvalue()


def _shell(code: str) -> str:
    """Standard output of a shell in which `python` and `amberdb` are those of the tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", code],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_runs_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page((ROOT / page).read_text(encoding="utf-8")) >= 10


def test_another_output_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = "```python\na = 1\nprint(a)\n```\n\n```text\n{}\n```\n"
    assert run_page(page.format(1)) == 1
    with pytest.raises(AssertionError, match="print"):
        run_page(page.format(2))
