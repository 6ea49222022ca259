"""Edit, delete and erase in a real browser: each asks for what is typed to confirm it."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

import amberdb
from support.accessibility import violations
from support.serving import Server

OpenPage = Callable[..., Page]


def test_an_edit_is_confirmed_and_stored(
    open_page: OpenPage, writer: Server, tmp_path: Path
) -> None:
    page = open_page(writer, "/document?collection=profile&id=lin")
    expect(page.locator(".badge-write")).to_be_visible()
    page.get_by_text("Edit this document").click()
    text = page.get_by_label("The whole document as JSON")
    text.fill(text.input_value().replace('"Lin"', '"Lin <b>Wei</b>"'))
    page.get_by_label("To confirm, type the id: lin").first.fill("maya")
    page.get_by_role("button", name="Store").click()
    expect(page.get_by_role("alert")).to_contain_text("does not confirm")
    expect(text).to_have_value(text.input_value())
    assert "Lin <b>Wei</b>" in text.input_value()
    assert violations(page) == []
    page.get_by_label("To confirm, type the id: lin").first.fill("lin")
    page.get_by_role("button", name="Store").click()
    page.wait_for_url("**/document?collection=profile&id=lin")
    expect(page.locator("#json")).to_contain_text("Lin <b>Wei</b>")
    with amberdb.open(tmp_path / "own.amber", read_only=True) as db:
        assert db["profile"]["lin"]["name"] == "Lin <b>Wei</b>"


def test_a_delete_and_an_erasure_are_confirmed(
    open_page: OpenPage, writer: Server, tmp_path: Path
) -> None:
    page = open_page(writer, "/document?collection=profile&id=maya")
    page.get_by_text("Delete this document").click()
    page.get_by_label("To confirm, type the id: maya").last.fill("maya")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/documents?collection=profile")
    page.goto(page.url.replace("profile", "memory") + "&where=%7B%22kind%22%3A%22call%22%7D")
    page.get_by_role("link", name="Erase").click()
    expect(page.get_by_label("Filter (JSON): these documents")).to_have_value('{"kind":"call"}')
    assert violations(page) == []
    page.get_by_label("Reason").fill("request 17")
    page.get_by_label("To confirm, type the name").fill("memory")
    page.get_by_role("button", name="Erase").click()
    expect(page.locator(".panel.good")).to_contain_text("33 documents were erased")
    with amberdb.open(tmp_path / "own.amber", read_only=True) as db:
        assert "maya" not in db["profile"]
        assert [each.reason for each in db.erasures()] == ["request 17"]
        assert not db["memory"].count({"kind": "call"})
