"""A document full of HTML and scripts in a real browser: nothing of it runs, and a page of another
origin gets nothing. (The fixture fails when a script, the policy or a dialog has said anything.)"""

from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from support.inspecting import MARKUP
from support.serving import Server

OpenPage = Callable[..., Page]


def url(path: str, **values: object) -> str:
    return f"{path}?{urlencode(values)}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        url("/documents", collection=MARKUP),
        url("/documents", collection=MARKUP, columns=f"{MARKUP},map,text"),
        url("/document", collection=MARKUP, id=MARKUP),
        url("/search", collection=MARKUP, words="umbrella", like=MARKUP),
        url("/vectors", collection=MARKUP, group=MARKUP),
        "/changes",
    ],
)
def test_markup_is_text(open_page: OpenPage, hostile: Server, path: str) -> None:
    page = open_page(hostile, path)
    if path.startswith("/vectors"):
        page.wait_for_selector("[data-ready]")
        page.locator("summary").last.click()
        page.locator("canvas").hover()
        expect(page.locator("[data-map-list]")).to_contain_text("<script>alert(1)</script>")
    if path == "/changes":
        page.wait_for_selector(".is-live")
    else:
        expect(page.locator("body")).to_contain_text("<script>alert(1)</script>")
    assert page.locator("img, main script, main b").count() == 0


def test_markup_stays_text_through_swaps(open_page: OpenPage, hostile: Server) -> None:
    page = open_page(hostile, "/")
    page.get_by_role("link", name=MARKUP).click()
    expect(page.locator("h1")).to_have_text(MARKUP)
    page.locator("tbody th a").first.click()
    expect(page.locator("h1")).to_have_text(MARKUP)
    page.get_by_role("link", name="Find similar").click()
    expect(page.locator(".hits")).to_contain_text("alert(1)")
    assert page.locator("img, main script, main b").count() == 0


def test_a_page_of_another_origin_gets_nothing(chromium: Browser, hostile: Server) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(hostile.url)
    base = hostile.url.partition("/?")[0]
    other = context.new_page()
    # localhost is another origin than 127.0.0.1, and is served: only the token keeps it out.
    assert other.goto(base.replace("127.0.0.1", "localhost")) is not None
    expect(other.locator("body")).to_contain_text("has the token")
    answer = other.evaluate(
        "async url => { try { return (await fetch(url, {credentials: 'include'})).status }"
        " catch (error) { return 'refused' } }",
        base,
    )
    assert answer == "refused"
    assert other.evaluate("document.cookie") == page.evaluate("document.cookie") == ""
    context.close()
