"""The inspector by keyboard alone."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from support.accessibility import violations
from support.serving import Server

OpenPage = Callable[..., Page]


def test_from_the_collections_to_a_document_and_back(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/")
    rows = page.locator("tbody tr")
    place = [row.inner_text().split()[0] for row in rows.all()].index("memory")
    for _ in range(place + 2):
        page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("memory")
    page.keyboard.press("n")
    page.wait_for_url("**after=*")
    page.keyboard.press("p")
    expect(page.locator("tbody th").first).to_have_text("m000000")
    page.keyboard.press("/")
    page.keyboard.type("kind")
    assert page.evaluate("document.activeElement.name") == "field"
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/search?collection=memory")
    page.keyboard.press("/")
    page.keyboard.type("umbrella")
    page.keyboard.press("Enter")
    expect(page.locator(".hits li").first).to_contain_text("umbrella")
    page.keyboard.press("Escape")
    for letter, title in (("l", "Live changes"), ("a", "Activity"), ("b", "Backups")):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        expect(page.locator("h1")).to_have_text(title)


def test_the_shortcuts_are_listed(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/")
    page.keyboard.press("?")
    dialog = page.locator("#shortcuts")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("Next row")
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_what_is_typed_into_a_field_is_no_shortcut(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/search?collection=memory")
    page.keyboard.press("/")
    page.keyboard.type("g c j n ?")
    assert page.evaluate("document.activeElement.value") == "g c j n ?"
    expect(page.locator("#shortcuts")).to_be_hidden()


def test_the_first_tab_leads_to_the_content(open_page: OpenPage, reader: Server) -> None:
    page = open_page(reader, "/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
