"""The READMEs are short, both say the same, and their figures are those of kept results."""

import json
import re
from typing import Any

import pytest

from style.repo import read
from style.test_docs import links

PAGES = ("README.md", "README.zh.md")
LINES_MAX = 150


def figure(result: str, row: str, engine: str, state: str = "settled", title: str = "") -> float:
    """The figure of a row in a kept result, in microseconds."""
    lines: list[dict[str, Any]] = json.loads(read(f"bench/results/{result}.json"))["lines"]
    (line,) = [
        each
        for each in lines
        if (each["row"], each["state"]) == (row, state) and title in each["title"]
    ]
    assert line["unit"] == "us"
    return float(line["engines"][engine]["value"])


def told() -> list[str]:
    """The figures of the READMEs, in their order, from the results."""
    states, search, killed = "2026-11-29-states", "2026-11-30-search", "2026-11-29-killed"
    put = [figure(states, "put", name) / 1000 for name in ("amberdb", "sqlite")]
    get = [figure(states, "get", name) for name in ("amberdb", "sqlite")]
    common = [figure(search, "bm25", name, title="common") / 1000 for name in ("amberdb", "fts5")]
    rare = [figure(search, "bm25", name, title="rare words") / 1000 for name in ("amberdb", "fts5")]
    opened = [
        figure(killed, "open", name, "killed", "SIGKILL") / 1000 for name in ("amberdb", "sqlite")
    ]
    return [
        *(f"{each:.2f}" for each in put),
        *(f"{each:.1f}" for each in get),
        f"{common[0]:.1f}",
        f"{common[1]:.0f}",
        *(f"{each:.2f}" for each in rare),
        f"{opened[0]:.0f}",
        f"{opened[1]:.1f}",
    ]


@pytest.mark.parametrize("page", PAGES)
def test_figures_are_of_kept_results(page: str) -> None:
    (paragraph,) = [
        each
        for each in read(page).split("\n\n")
        if "FTS5" in each and "ms" in each and "us" in each
    ]
    said = re.findall(r"(?<![\d,.])\d+(?:\.\d+)?(?![\d,])", paragraph.replace("FTS5", "FTS"))
    assert [each for each in said if each in told()] == told()


@pytest.mark.parametrize("page", PAGES)
def test_it_is_short(page: str) -> None:
    assert read(page).count("\n") < LINES_MAX


def test_both_languages_lead_to_the_same_places() -> None:
    ours, theirs = (
        {each.replace("/zh/", "/") for each in links(page)} - set(PAGES) for page in PAGES
    )
    assert ours == theirs


def test_both_languages_have_the_same_table() -> None:
    tables = [
        [row.count("|") for row in read(page).splitlines() if row.startswith("|")] for page in PAGES
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 7  # a head, a rule and five rows
