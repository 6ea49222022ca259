"""Every page in a real browser: both languages, both themes, wide and narrow, with axe-core."""

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

import amberdb
from support.accessibility import violations
from support.serving import Server

OpenPage = Callable[..., Page]


def url(path: str, **values: object) -> str:
    return f"{path}?{urlencode(values)}"


PAGES: Final = {
    "collections": "/",
    "documents": "/documents?collection=memory&limit=25",
    "filtered": url(
        "/documents",
        collection="memory",
        where='{"entity": "lin", "importance": {"$gte": 0.5}}',
        order="-created_at",
    ),
    "wrong-filter": "/documents?collection=memory&where=%7B",
    "empty": "/documents?collection=audit",
    "document": "/document?collection=memory&id=m000012",
    "missing": "/document?collection=memory&id=nobody",
    "search": url("/search", collection="memory", words="umbrella", like="m000012"),
    "search-empty": "/search?collection=memory",
    "vectors": "/vectors?collection=memory&group=entity",
    "changes": "/changes",
    "activity": "/activity",
    "backups": "/backups",
    "points": "/backups?chain=0",
    "check": "/check",
    "error": "/no-such-page",
}


def settle(page: Page, name: str) -> None:
    """Waits for what a script adds to a page."""
    if name == "vectors":
        page.wait_for_selector("[data-ready]")
    if name == "activity":
        expect(page.locator(".chart canvas")).to_have_count(4)
    if name == "changes":
        page.wait_for_selector(".is-live")


@pytest.mark.parametrize(("language", "theme"), [("en", "light"), ("zh", "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible(
    open_page: OpenPage,
    reader: Server,
    picture: Callable[[Page, str], None],
    name: str,
    language: str,
    theme: str,
) -> None:
    page = open_page(reader, PAGES[name], language=language, theme=theme)
    settle(page, name)
    assert page.locator("html").get_attribute("lang") == language
    expect(page.locator("h1")).to_have_count(1)
    assert violations(page) == []
    picture(page, f"{name}-{language}-{theme}")


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_a_telephone(open_page: OpenPage, reader: Server, name: str) -> None:
    page = open_page(reader, PAGES[name], width=380)
    settle(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


@pytest.mark.parametrize("name", ["collections", "documents", "document", "search", "backups"])
def test_pages_work_without_a_script(open_page: OpenPage, reader: Server, name: str) -> None:
    page = open_page(reader, PAGES[name], scripts=False)
    expect(page.locator("main")).to_contain_text(
        {
            "collections": "memory",
            "documents": "m000000",
            "document": "umbrella",
            "search": "m000012",
            "backups": "monday.amberbak",
        }[name]
    )


def test_a_filter_is_built_and_its_plan_shown(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/documents?collection=memory")
    page.get_by_label("Field").last.fill("entity")
    page.get_by_label("Value").last.fill("lin")
    page.get_by_role("button", name="Add condition").click()
    where = page.get_by_label("Filter (JSON)")
    expect(where).to_have_value('{"entity": "lin"}')
    expect(page.locator(".plan summary")).to_contain_text("ordered:entity,-created_at")
    page.get_by_label("Order").fill("-created_at")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".plan summary")).to_contain_text("order from the index")
    page.get_by_role("button", name="Remove this condition").click()
    expect(where).to_have_value("")
    expect(page.locator(".plan summary")).to_contain_text("sorts all matches")


def test_columns_pages_and_the_way_back(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/documents?collection=memory")
    page.get_by_text("Columns").click()
    page.get_by_role("checkbox", name="tags").uncheck()
    page.get_by_label("Another path").fill("place.city")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("thead")).to_contain_text("place.city")
    expect(page.locator("thead")).not_to_contain_text("tags")
    first = page.locator("tbody th").first.inner_text()
    page.get_by_role("link", name="Next page").click()
    expect(page.locator("tbody th").first).not_to_have_text(first)
    expect(page.locator("thead")).to_contain_text("place.city")
    page.go_back()
    expect(page.locator("tbody th").first).to_have_text(first)
    page.get_by_role("link", name="importance").click()
    expect(page.locator("[aria-sort=ascending]")).to_contain_text("importance")


def test_a_click_on_the_map_opens_the_document(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/vectors?collection=memory&group=entity")
    page.wait_for_selector("[data-ready]")
    expect(page.locator("[data-map-note]")).to_contain_text("1,200 vectors")
    expect(page.locator("[data-map-legend] li")).to_have_count(5)
    answer = page.request.get(page.url.replace("/vectors", "/vectors/points"))
    point = json.loads(answer.text())["points"][0]
    box = page.locator("canvas").bounding_box()
    assert box is not None
    page.locator("canvas").click(
        position={
            "x": 20 + (point["x"] + 1) / 2 * (box["width"] - 40),
            "y": 20 + (1 - point["y"]) / 2 * (box["height"] - 40),
        }
    )
    page.wait_for_url("**/document?collection=memory&id=*")


def test_changes_come_by_themselves(
    open_page: OpenPage, reader: Server, application: amberdb.Database
) -> None:
    page = open_page(reader, "/changes")
    page.wait_for_selector(".is-live")
    application["notes"].put({"id": "live", "text": "<b>written</b> while you look"})
    expect(page.locator("tbody tr").first).to_contain_text("<b>written</b> while you look")
    page.get_by_role("button", name="Pause").click()
    application["notes"].put({"id": "later"})
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("tbody tr").first).to_contain_text("later")
    page.locator("tbody tr").first.get_by_role("link", name="later").click()
    expect(page.locator("h1")).to_have_text("later")


def test_a_check_shows_its_progress_and_its_end(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/check")
    page.get_by_role("button", name="Start the check").click()
    expect(page.locator(".panel.good")).to_contain_text("Sound")


def test_language_and_theme_stay(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/backups")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("h1")).to_have_text("备份")
    page.get_by_role("button", name="深色").click()
    page.goto(page.url.replace("/backups", "/activity"))
    expect(page.locator("h1")).to_have_text("活动")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(21, 18, 14)"
