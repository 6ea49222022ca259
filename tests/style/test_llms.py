"""llms.txt has every document, and says what the documents say."""

import re

from style.repo import ROOT, files, read
from tools import llms


def test_it_is_up_to_date() -> None:
    assert read("llms.txt") == llms.index(), "run `make llms`"


def test_every_page_is_in_it_once() -> None:
    linked = re.findall(r"\]\(([^)]+)\)", read("llms.txt"))
    assert len(linked) == len(set(linked))
    assert [path for path in linked if path not in files()] == []
    pages = {path for path in files() if path.startswith("docs/") and path.endswith(".md")}
    decisions = {path for path in pages if path.startswith("docs/decisions/0")}
    assert pages - decisions == {path for path in linked if path.startswith("docs/")}
    assert "src/amberdb/guide.md" in linked


def test_every_page_says_what_it_is_about() -> None:
    entries = re.findall(r"^- \[(.+?)\]\(\S+?\): (.+)$", read("llms.txt"), re.M)
    assert len(entries) == read("llms.txt").count("\n- ")
    assert [entry for entry in entries if len(entry[1]) < 10] == []


def test_the_full_text_has_the_guide_and_the_documents() -> None:
    text = llms.full()
    for path in ("src/amberdb/guide.md", "docs/queries.md", "docs/search.md"):
        assert (ROOT / path).read_text(encoding="utf-8").strip() in text


def test_a_page_that_opens_with_a_sample_is_told_by_its_headings() -> None:
    assert (
        llms.about("# Title\n\n```sh\nls\n```\n\nThat is all.\n\n## One\n\n## Two\n") == "One; Two"
    )
    assert llms.about("# Title\n\nShort. [Longer](a.md), and long enough for all:\n\n- a\n") == (
        "Short. Longer, and long enough for all"
    )
