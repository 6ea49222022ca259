"""The folders at the top, the links that show them to checkers, and pyproject.toml agree."""

import os
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest

from style.repo import PACKAGE_FOLDERS, ROOT, files, package_of, packages, read

MODULES_MAX = 20

LINKED = {
    name.removeprefix("amberdb."): folder
    for name, folder in packages().items()
    if name.count(".") == 1
}
"""The packages directly inside `amberdb`, and their folders."""


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


@pytest.mark.parametrize("name", LINKED)
def test_link_is_relative_and_leads_to_the_folder(name: str) -> None:
    link = ROOT / "src" / "amberdb" / name
    assert link.is_symlink(), f"missing: ln -s ../../{LINKED[name]} src/amberdb/{name}"
    assert os.readlink(link) == f"../../{LINKED[name]}"
    assert link.resolve() == ROOT / LINKED[name]


def test_there_are_no_other_links() -> None:
    links = {path.name for path in (ROOT / "src" / "amberdb").iterdir() if path.is_symlink()}
    assert links == set(LINKED)


def test_setuptools_names_every_package() -> None:
    setuptools = project()["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages())
    assert setuptools["package-dir"] == {
        "amberdb": "src/amberdb",
        **{f"amberdb.{name}": folder for name, folder in LINKED.items()},
    }


def test_checkers_look_into_every_package() -> None:
    # pyright walks into a linked folder only when it is named; unnamed, it would pass unread.
    include = set(project()["tool"]["pyright"]["include"])
    assert {"src/amberdb", *(f"src/amberdb/{name}" for name in LINKED)} <= include
    assert "src/amberdb" in project()["tool"]["mypy"]["files"]


@pytest.mark.parametrize("folder", PACKAGE_FOLDERS)
def test_every_folder_with_modules_is_a_package(folder: str) -> None:
    # setuptools is given the packages by name, so modules elsewhere would not be installed.
    inside = {
        path.rpartition("/")[0]
        for path in files()
        if path.startswith(folder + "/") and path.endswith(".py")
    }
    assert inside <= set(packages().values())


def test_no_folder_has_more_modules_than_a_reader_can_survey() -> None:
    count: dict[str, int] = {}
    for path in files():
        folder, _, name = path.rpartition("/")
        if name.endswith(".py") and folder.startswith((*PACKAGE_FOLDERS, "bench")):
            count[folder] = count.get(folder, 0) + 1
    assert {folder: number for folder, number in count.items() if number > MODULES_MAX} == {}


def test_every_package_file_is_installed() -> None:
    data = project()["tool"]["setuptools"]["package-data"]
    lost = [
        path
        for path in files()
        if path.startswith(tuple(f"{folder}/" for folder in PACKAGE_FOLDERS))
        for package, inner in [package_of(path)]
        if not path.endswith(".py")
        and not any(PurePosixPath(inner).match(pattern) for pattern in data.get(package, []))
    ]
    assert lost == [], "name them in tool.setuptools.package-data"


def test_package_is_typed() -> None:
    assert (ROOT / "src" / "amberdb" / "py.typed").is_file()


def test_tests_are_no_packages() -> None:
    # --import-mode=importlib: with an __init__.py two tests of the same name would hide each other.
    assert [path for path in files() if path.startswith("tests/") and "__init__" in path] == []
