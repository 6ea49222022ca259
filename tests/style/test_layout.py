"""The four folders at the top, the links that show them to checkers, and pyproject.toml agree."""

import os
import tomllib
from typing import Any

import pytest

from style.repo import LAYERS, PACKAGE_FOLDERS, ROOT, files, read

# In this order setuptools, the links and the arrows name the packages.
PACKAGES = ("amberdb", *(f"amberdb.{layer}" for layer in LAYERS))


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


@pytest.mark.parametrize("layer", LAYERS)
def test_link_is_relative_and_leads_to_the_folder(layer: str) -> None:
    link = ROOT / "src" / "amberdb" / layer
    assert link.is_symlink(), f"missing: ln -s ../../{layer} src/amberdb/{layer}"
    assert os.readlink(link) == f"../../{layer}"
    assert link.resolve() == ROOT / layer


def test_there_are_no_other_links() -> None:
    links = {path.name for path in (ROOT / "src" / "amberdb").iterdir() if path.is_symlink()}
    assert links == set(LAYERS)


def test_setuptools_names_every_package() -> None:
    setuptools = project()["tool"]["setuptools"]
    assert set(setuptools["packages"]) == set(PACKAGES)
    assert setuptools["package-dir"] == {
        "amberdb": "src/amberdb",
        **{f"amberdb.{layer}": layer for layer in LAYERS},
    }


def test_arrows_name_every_layer() -> None:
    layers = next(
        contract["layers"]
        for contract in project()["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    named = {name for level in layers for name in level.replace("|", " ").split()}
    ground_floor = {
        name.removesuffix(".py")
        for name in os.listdir(ROOT / "src" / "amberdb")
        if name.endswith(".py") and name != "__init__.py"
    }
    assert named == {*LAYERS, *ground_floor}


def test_checkers_look_into_every_layer() -> None:
    # pyright walks into a linked folder only when it is named; unnamed, it would pass unread.
    include = set(project()["tool"]["pyright"]["include"])
    assert {"src/amberdb", *(f"src/amberdb/{layer}" for layer in LAYERS)} <= include
    assert "src/amberdb" in project()["tool"]["mypy"]["files"]


@pytest.mark.parametrize("folder", PACKAGE_FOLDERS)
def test_package_folder_is_flat(folder: str) -> None:
    # setuptools is given the packages by name, so a folder inside one would not be installed.
    inside = [path for path in files() if path.startswith(folder + "/")]
    assert f"{folder}/__init__.py" in inside
    assert [path for path in inside if "/" in path.removeprefix(folder + "/")] == []


def test_every_package_file_is_installed() -> None:
    data = project()["tool"]["setuptools"]["package-data"]
    known = {
        folder: {pattern.rpartition(".")[2] for pattern in data.get(package, [])} | {"py"}
        for folder, package in {
            "src/amberdb": "amberdb",
            **{layer: f"amberdb.{layer}" for layer in LAYERS},
        }.items()
    }
    lost = [
        path
        for path in files()
        for folder in PACKAGE_FOLDERS
        if path.startswith(folder + "/") and path.rpartition(".")[2] not in known[folder]
    ]
    assert lost == [], "name them in tool.setuptools.package-data"


def test_package_is_typed() -> None:
    assert (ROOT / "src" / "amberdb" / "py.typed").is_file()


def test_tests_are_no_packages() -> None:
    # --import-mode=importlib: with an __init__.py two tests of the same name would hide each other.
    assert [path for path in files() if path.startswith("tests/") and "__init__" in path] == []
