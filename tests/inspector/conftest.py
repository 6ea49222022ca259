"""What the tests of the inspector in a browser share: Chromium, a database that an application has
open, and pages that may neither fail nor ask another host; and the mark `inspector`, by which
`make test` and `make test-all` leave them out.

Chromium is the system's: `chromium`, or AMBERDB_CHROMIUM names its file. With AMBERDB_PICTURES a
folder gets the pictures of docs/inspector.md.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import amberdb
from support.databases import FakeClock, assert_sound
from support.inspecting import fill, fill_with_markup
from support.serving import Server, serving

FLAGS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES: Final = {
    "collections-en-light": "collections",
    "filtered-en-light": "documents",
    "document-en-light": "document",
    "search-zh-dark": "search-dark",
    "vectors-en-light": "vectors",
    "activity-zh-dark": "activity-dark",
    "points-en-light": "points",
}
"""What docs/inspector.md shows, by page, language and theme."""
WITHOUT_FOLDERS: Final = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const node = texts.currentNode;
        node.data = node.data.replaceAll(/[/][^ ]*[/](?=[^ /]+[.]amber)/g, "/data/");
    }
}"""
"""A picture names no folder of the machine on which it was made."""
WIDE: Final = {"width": 1280, "height": 860}

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):  # the hook is given those of other folders too
            item.add_marker("inspector")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = os.environ.get("AMBERDB_CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.fail("there is no chromium: apt-get install chromium, or set AMBERDB_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[amberdb.Database]:
    """A database that this process has open and has written for an hour, by a clock of its own."""
    path = tmp_path_factory.mktemp("inspector") / "memory.amber"
    clock = FakeClock(time.time() - 3600)
    with amberdb.open(path, clock=clock, background=False) as db:
        fill(db, 1200)
        db.backup(path.with_name("monday.amberbak"))
        notes = db.collection("notes")
        for minute in range(59):
            clock.advance(60)
            for number in range(3 + minute * 7 % 11):
                notes.put({"id": f"{minute}-{number}", "text": "written by the application"})
            if minute % 9 == 0:
                db.checkpoint()
        db.backup(path.with_name("tuesday.amberbak"), base=path.with_name("monday.amberbak"))
        yield db
        assert_sound(db)


@pytest.fixture(scope="session")
def reader(application: amberdb.Database) -> Iterator[Server]:
    """`amberdb ui` beside the application."""
    with serving(Path(application.path), "--no-browser", verb="ui") as server:
        yield server


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`amberdb ui` of a database that is full of HTML and scripts."""
    path = tmp_path_factory.mktemp("hostile") / "hostile.amber"
    with amberdb.open(path) as db:
        fill_with_markup(db)
        with serving(path, "--no-browser", verb="ui") as server:
            yield server
        assert_sound(db)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Server]:
    """`amberdb ui --write` of a database of its own."""
    path = tmp_path / "own.amber"
    with amberdb.connect(path) as db:
        fill(db, 100)
        with serving(path, "--write", "--no-browser", verb="ui") as server:
            yield server
        assert_sound(db)


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """`open_page(server, path, language=, theme=, width=)`: a page in a browser of its own. At the
    end of the test it fails if a script or the policy of the page has complained, or if anything
    was asked of another host."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(
        server: Server,
        path: str = "/",
        *,
        language: str = "en",
        theme: str = "light",
        width: int = WIDE["width"],
        scripts: bool = True,
    ) -> Page:
        base = base_of(server)
        context = chromium.new_context(
            viewport={"width": width, "height": WIDE["height"]},
            color_scheme="dark" if theme == "dark" else "light",
            locale="zh-CN" if language == "zh" else "en-US",
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(base)
                else complaints.append(f"a request of {request.url}")
            ),
        )
        page.goto(server.url)
        page.goto(base + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    # The browser itself says so of every answer that is an error.
    assert [each for each in complaints if "Failed to load resource" not in each] == []


def base_of(server: Server) -> str:
    return server.url.partition("/?")[0]


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Keeps a picture of a page for the documents, where pictures are asked for."""

    def keep(page: Page, name: str) -> None:
        folder = os.environ.get("AMBERDB_PICTURES")
        if folder and name in PICTURES:
            page.evaluate(WITHOUT_FOLDERS)
            page.screenshot(path=os.path.join(folder, f"inspector-{PICTURES[name]}.png"))

    return keep
