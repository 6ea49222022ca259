"""The wheel and the source distribution: nothing is missing, and what is installed works.

The build backend is called directly, so no build needs a network. It writes into its source tree,
so each build gets a copy of the repository.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from style.repo import PACKAGE_FOLDERS, ROOT, files, package_of, packages

pytestmark = pytest.mark.slow

WORKS = """
import importlib, os, sys
root = os.path.realpath(sys.argv[1])
if sys.argv[2] == "editable":
    import site
    site.addsitedir(sys.argv[3])
names = ["", ".aio", ".chat", ".cli.__main__", ".context", ".demo.data", ".events", ".graph",
         ".memory", ".memory.aio", ".profiles", ".series"]
for name in names:
    importlib.import_module("amberdb" + name)
import amberdb
from amberdb.demo.data import read_turns
from amberdb.memory import RuleExtractor
with amberdb.open("t.amber") as db:
    db.collection("x").put({"id": "a", "n": 1})
    assert db.collection("x").get("a") == {"id": "a", "n": 1}
assert read_turns(None)
from amberdb.memory.rules import classify
assert classify("I decided to move to Berlin")
for name, module in sys.modules.items():
    if name.partition(".")[0] == "amberdb":
        assert os.path.realpath(module.__file__).startswith(root + os.sep), (name, module.__file__)
print("works")
"""
"""Arguments: the directory that every module has to come from, and how it is installed."""


LINK = re.compile(r"(?:\]\(|\b(?:href|src)=\")([^\s()\"']+)")
"""The target of a link in Markdown, or in HTML inside it."""


def copy_repository(target: Path, *, has_links: bool) -> Path:
    """A checkout; without links, git writes the target of each link into a text file."""
    for path in files():
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, copy)
    links = [path for path in (ROOT / "src" / "amberdb").iterdir() if path.is_symlink()]
    assert links
    for link in links:
        copy = target / link.relative_to(ROOT)
        if has_links:
            copy.symlink_to(os.readlink(link))
        else:
            copy.write_text(os.readlink(link))
    return target


def run(*command: str, cwd: Path, **environment: str) -> str:
    ran = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return ran.stdout


def build(kind: str, tree: Path, target: Path) -> Path:
    """`kind` is the name of a hook of the build backend."""
    target.mkdir()
    code = f"import sys\nfrom setuptools import build_meta\nbuild_meta.{kind}(sys.argv[1])"
    run(sys.executable, "-c", code, str(target), cwd=tree)
    (made,) = target.iterdir()
    return made


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("text") / "amberdb", has_links=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links")
    return build(
        "build_wheel",
        copy_repository(folder / "amberdb", has_links=True),
        folder / "dist",
    )


@pytest.fixture(scope="module")
def sdist(without_links: Path) -> Path:
    """From a checkout without links: they are in no distribution."""
    return build("build_sdist", without_links, without_links.parent / "sdist")


def install(wheel: Path, target: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--disable-pip-version-check", "--target", str(target), str(wheel), cwd=wheel.parent)
    return target


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    return install(wheel, wheel.parent / "installed")


def test_wheel_has_every_module_and_every_data_file_and_nothing_else(wheel: Path) -> None:
    names = {name: name.replace(".", "/") for name in packages()}
    installed = {
        f"{names[name]}/{inner}"
        for path in files()
        if path.startswith(tuple(f"{folder}/" for folder in PACKAGE_FOLDERS))
        for name, inner in [package_of(path)]
    }
    assert {"amberdb/py.typed", "amberdb/memory/words.toml"} <= installed
    assert "amberdb/demo/dialogue.jsonl" in installed
    assert "amberdb/inspector/web/static/vendor/htmx-LICENSE.txt" in installed
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert found == installed


def test_sdist_has_every_file_of_the_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    visible = {path for path in files() if not path.startswith(".")}
    assert {"CHANGELOG.md", "LICENSE", "docs/api.md"} <= visible
    assert sorted(visible - names) == []


def test_wheel_of_a_checkout_without_links_is_the_same(wheel: Path, without_links: Path) -> None:
    other = build("build_wheel", without_links, without_links.parent / "dist")
    assert contents(other) == contents(wheel)


def test_wheel_of_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert contents(build("build_wheel", tree, tmp_path / "dist")) == contents(wheel)


def test_description_of_the_index_has_no_relative_link(wheel: Path) -> None:
    (metadata,) = (
        data.decode() for name, data in contents(wheel).items() if name.endswith("/METADATA")
    )
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    targets = LINK.findall(metadata)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    place = rf"https://[^/]+/[^/]+/[^/]+/(?:blob|raw)/v{re.escape(version)}/([^#]+)"
    named = [found[1] for target in targets if (found := re.fullmatch(place + "(#.*)?", target))]
    assert "README.zh.md" in named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.campaign
def test_tests_of_the_sdist_pass(sdist: Path, installed: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "tree", filter="data")
    (tree,) = (tmp_path / "tree").iterdir()
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider")
    tests = ("tests/unit/test_types.py", "tests/unit/engine/test_documents.py")
    assert " passed" in run(*command, *tests, cwd=tree, PYTHONPATH=str(installed))


def test_installed_wheel_works_elsewhere(installed: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-P", "-c", WORKS, str(installed), "installed")
    assert run(*command, cwd=tmp_path, PYTHONPATH=str(installed)) == "works\n"


@pytest.mark.campaign
def test_editable_install_of_a_checkout_without_links_works(
    without_links: Path, tmp_path: Path
) -> None:
    wheel = build("build_editable", without_links, tmp_path / "dist")
    target = install(wheel, tmp_path / "installed")
    # -S: the virtual environment has its own editable install, of this checkout.
    dependencies = [path for path in sys.path if path.endswith("-packages")]
    path = os.pathsep.join([str(target), *dependencies])
    command = (sys.executable, "-P", "-S", "-c", WORKS, str(without_links), "editable")
    assert run(*command, str(target), cwd=tmp_path, PYTHONPATH=path) == "works\n"
