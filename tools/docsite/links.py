"""Checks every link of the built site: to a page, to an anchor, to an image. Asks no network."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page:
    """What a page offers and where it points."""

    anchors: set[str] = field(default_factory=set[str])
    links: list[str] = field(default_factory=list[str])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"id", "name"} and value:
                self.page.anchors.add(value)
            elif name in {"href", "src"} and value is not None:
                self.page.links.append(value)


def lost_links(site: Path) -> Iterator[str]:
    """`page: link` of every link inside the site that leads nowhere."""
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        if path.name == "404.html":  # is served for every address, with links from the root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            goal = goal / "index.html" if goal.is_dir() else goal
            anchor = unquote(parts.fragment)
            # The theme's own marks, such as "#__toc", are no anchors of a text.
            is_lost = not goal.is_file() or (
                anchor != ""
                and not anchor.startswith("__")
                and goal in pages
                and anchor not in pages[goal].anchors
            )
            if is_lost:
                yield f"{path.relative_to(site.resolve())}: {link}"


def _read(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page
