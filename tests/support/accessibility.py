"""What axe-core finds in a page of a browser.

Invariants:
- axe-core is the file in the wheel of axe-playwright-python, run from outside of the page: the
  policy of the page, which forbids foreign scripts, stays as it is.
"""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


@cache
def _axe() -> str:
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


def violations(page: "Page") -> list[str]:
    """A line for each element that breaks a rule."""
    page.evaluate(_axe())
    found: dict[str, Any] = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10  # it has looked at the page
    return [
        f"{each['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]
