"""The documentation site: what it is made of, and that its own checks see a fault.

`make docs` builds it; these tests need none of its packages.
"""

import re
import tomllib
from pathlib import Path
from typing import TypeAlias, Union

import pytest

from style.repo import ROOT, files, read
from tools.docsite.docstrings import markdown
from tools.docsite.gather import indented, mended, pages
from tools.docsite.links import lost_links

Nav: TypeAlias = Union[str, dict[str, "Nav | list[Nav]"]]  # noqa: UP007  # it names itself
FORGE = "https://forge.example/amberdb/blob/main/"
KNOWN = {"docs/a.md": "a.md", "docs/zh/b.md": "zh/b.md", "README.md": "index.md"}


def entries(nav: Nav | list[Nav]) -> list[str]:
    """The pages that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    inner = list(nav.values()) if isinstance(nav, dict) else nav
    return [page for one in inner for page in entries(one)]


def navigation() -> list[Nav]:
    nav: list[Nav] = tomllib.loads(read("zensical.toml"))["project"]["nav"]
    return nav


def test_every_page_is_in_the_navigation_once() -> None:
    nav = entries(navigation())
    written = [page for page in nav if not page.startswith("reference/")]
    assert sorted(written) == sorted(pages().values())


def test_the_reference_of_every_package_is_in_the_navigation() -> None:
    source = read("tools/docsite/api.py")
    packages = re.findall(r'^    "(amberdb[.\w]*)":', source, re.MULTILINE)
    assert len(packages) > 10
    nav = entries(navigation())
    wanted = ["reference/index.md", *(f"reference/{package}.md" for package in packages)]
    assert [page for page in nav if page.startswith("reference/")] == wanted


def test_every_drawing_is_shown() -> None:
    text = "".join(read(path) for path in files() if path.endswith(".md"))
    drawings = [path for path in files() if path.startswith("docs/images/")]
    assert drawings
    assert [path for path in drawings if Path(path).name not in text] == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[x](zh/b.md#y)", "[x](zh/b.md#y)"),
        ("[x](../README.md)", "[x](index.md)"),
        ("[x](../engine/jobs.py)", f"[x]({FORGE}engine/jobs.py)"),
        (f"[x]({FORGE}README.md#y)", "[x](index.md#y)"),
        ("[`x`](../engine/jobs.py)", f"[`x`]({FORGE}engine/jobs.py)"),
        ("![x](images/commit.svg)", "![x](images/commit.svg)"),
        ("[x](https://example.com/a.md)", "[x](https://example.com/a.md)"),
        ("`[x](../README.md)`", "`[x](../README.md)`"),
        ("```\n[x](../README.md)\n```\n", "```\n[x](../README.md)\n```\n"),
    ],
)
def test_links_of_a_page_hold_on_the_site(text: str, wanted: str) -> None:
    assert mended(text, "docs/a.md", KNOWN, FORGE) == wanted


def test_links_of_a_page_in_a_folder_and_without_a_forge() -> None:
    text = "[x](../a.md) [`y`](../../engine/jobs.py) [z](https://example.com)"
    wanted = "[x](../a.md) `y` [z](https://example.com)"
    assert mended(text, "docs/zh/b.md", KNOWN, None) == wanted


def test_what_belongs_to_an_item_is_indented_by_four() -> None:
    text = "- a\n  b\n\n  | c |\n  |---|\n\n      code\n\nd\n  e\n```\n- f\n  g\n```\n"
    wanted = "- a\n    b\n\n    | c |\n    |---|\n\n      code\n\nd\n  e\n```\n- f\n  g\n```\n"
    assert indented(text) == wanted
    assert indented("- a\n\n  b\n- c\n- d\n") == "- a\n\n    b\n\n- c\n- d\n"


def test_a_docstring_becomes_a_list_of_its_parameters() -> None:
    text = "Opens it.\n\n    db = open()\n\npath   a directory\n       with files\nsync   a class"
    code, names = "```py\ndb = open()\n```", "- `path`: a directory with files\n- `sync`: a class"
    assert markdown(text) == f"Opens it.\n\n{code}\n\n{names}\n"


def test_a_link_of_the_built_site_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="here">A</h1><a href="../#top">up</a>')
    (tmp_path / "index.html").write_text(
        '<h1 id="top">T</h1><a href="a/#here"></a><a href="a/#lost"></a><a href="b/"></a>'
        '<img src="gone.svg"><a href="https://example.com/"></a><a href="#__toc"></a>'
    )
    lost = ["index.html: a/#lost", "index.html: b/", "index.html: gone.svg"]
    assert list(lost_links(tmp_path)) == lost


def test_pages_are_found() -> None:
    found = pages()
    assert len(found) > 80
    assert all((ROOT / path).is_file() for path in found)
