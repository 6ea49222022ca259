"""A release: one version everywhere, workflows that run what `.ci/run` runs, and pinned actions."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from style.repo import ROOT, read

PLACES = ("pyproject.toml", "src/amberdb/__init__.py", "CHANGELOG.md", ".ci/release.py")
WORKFLOWS = (".github/workflows/ci.yml", ".github/workflows/release.yml")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What names the version, as it is on the day of a release of 0.2.0."""
    for path in PLACES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    change(tmp_path / "pyproject.toml", r'(?m)^version = ".*"', 'version = "0.2.0"')
    change(tmp_path / "src/amberdb/__init__.py", r'__version__ = ".*"', '__version__ = "0.2.0"')
    change(tmp_path / "CHANGELOG.md", "\n## ", "\n## 0.2.0 (2027-01-31)\n\n- [fix] One.\n\n## ")
    return tmp_path


def change(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text(), count=1)
    assert count == 1
    path.write_text(changed)


def release(tree: Path, *tag: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(tree / ".ci/release.py"), *tag]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_version_is_the_same_everywhere() -> None:
    done = release(ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("- [")


def test_a_release_has_the_notes_of_its_version(tree: Path) -> None:
    done = release(tree, "v0.2.0")
    assert (done.returncode, done.stdout) == (0, "- [fix] One.\n")


@pytest.mark.parametrize(
    ("path", "pattern", "text", "tag", "message"),
    [
        ("pyproject.toml", "0.2.0", "0.2.1", "v0.2.1", "amberdb.__version__ is 0.2.0"),
        ("src/amberdb/__init__.py", "0.2.0", "0.2.1", "v0.2.0", "amberdb.__version__ is 0.2.1"),
        ("CHANGELOG.md", "## 0.2.0", "## 0.3.0", "v0.2.0", "newest heading of CHANGELOG.md 0.3.0"),
        ("CHANGELOG.md", "2027-01-31", "unreleased", "v0.2.0", "0.2.0 has no day"),
        ("CHANGELOG.md", "2027-01-31", "31.1.2027", "v0.2.0", "is not `VERSION (YYYY-MM-DD)`"),
        ("CHANGELOG.md", "2027", "2027", "0.2.0", "tag v0.2.0"),
        ("CHANGELOG.md", "2027", "2027", "v0.3.0", "tag v0.2.0"),
    ],
)
def test_what_does_not_agree_is_no_release(
    tree: Path, path: str, pattern: str, text: str, tag: str, message: str
) -> None:
    change(tree / path, pattern, text)
    done = release(tree, tag)
    assert done.returncode == 1
    assert message in done.stderr


def test_workflows_run_the_verbs_of_ci_run() -> None:
    (jobs,) = re.findall(r"verb: \[(.+)\]", read(WORKFLOWS[0]))
    (verbs,) = re.findall(r"\|\| set -- (.+)", read(".ci/run"))
    apart = "test-lowest"  # too long for one run of all verbs
    assert [job for job in jobs.split(", ") if job != apart] == verbs.split()
    targets = set(re.findall(r"(?m)^([a-z-]+):", read("Makefile")))
    called = {*verbs.split(), *re.findall(r"run: make (.+)", read(WORKFLOWS[1]))[0].split()}
    assert called <= targets


@pytest.mark.parametrize("path", WORKFLOWS)
def test_actions_are_pinned_to_a_commit(path: str) -> None:
    used = re.findall(r"uses: (.+)", read(path))
    assert used
    pinned = re.compile(
        r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/\w+\.yml"
    )
    assert [action for action in used if not pinned.fullmatch(action)] == []


@pytest.mark.parametrize("path", WORKFLOWS)
def test_an_expression_is_no_part_of_a_command(path: str) -> None:
    # The name of a tag or branch could hold a command; the verbs of the matrix are our own.
    commands = re.findall(r"(?m)^\s*(?:- )?run: (.+)", read(path))
    assert commands
    assert [each for each in commands if "${{" in each.replace("${{ matrix.verb }}", "")] == []


def test_lowest_versions_are_those_of_pyproject() -> None:
    command = [sys.executable, ".ci/lowest.py", "server", "postgres"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lowest = dict(line.split("==") for line in done.stdout.split())
    assert {"lmdb", "msgspec", "numpy", "fastapi", "psycopg"} <= set(lowest)
    assert f'"msgspec>={lowest["msgspec"]}"' in read("pyproject.toml")
