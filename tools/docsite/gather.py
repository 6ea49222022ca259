"""The pages of the site: copies of Markdown files of the repository, with their links mended.

Invariants:
- A link to a file that is a page of the site becomes a link to that page; one to another file of
  the repository becomes a link to the forge, or plain text while pyproject.toml names no forge.
- Fences and code spans are left as they are, but for the indent of what belongs to an item of a
  list: two spaces on a forge, four for Python's Markdown.
"""

import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "README.md": "index.md",
    "README.zh.md": "zh/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "bench/README.md": "bench.md",
}
"""Pages that are not in docs/, and their names on the site."""

_CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)\s*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<text>!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\((?P<target>[^)\s]+)\)")
_SOURCE = re.compile(r"(?P<name>\b(?:src|href)=)\"(?P<target>[^\"]+)\"")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_FOREIGN = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages() -> dict[str, str]:
    """The files that are pages, relative to the repository, and their names on the site."""
    found = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in sorted(ROOT.glob("docs/**/*.md"))
    }
    return found | {path: name for path, name in ELSEWHERE.items() if (ROOT / path).is_file()}


def forge() -> str | None:
    """The address of the repository's files, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    url = urls.get("source") or urls.get("repository")
    return f"{url.rstrip('/')}/blob/main/" if url else None


def gather(target: Path) -> None:
    """Writes every page and every image below `target`, which is emptied before."""
    shutil.rmtree(target, ignore_errors=True)
    known = pages()
    for path, name in known.items():
        text = mended((ROOT / path).read_text(encoding="utf-8"), path, known, forge())
        text = indented(text)
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    for folder in ("images", "stylesheets"):
        if (ROOT / "docs" / folder).is_dir():
            shutil.copytree(ROOT / "docs" / folder, target / folder)


def mended(text: str, path: str, known: dict[str, str], forge_url: str | None) -> str:
    """The text of the page at `path`, with links that hold on the site."""

    def linked(match: re.Match[str]) -> str:
        target = _on_site(match["target"], path, known, forge_url)
        if target is None:
            return match["text"].lstrip("!")[1:-1]
        return f"{match['text']}({target})"

    def sourced(match: re.Match[str]) -> str:
        target = _on_site(match["target"], path, known, forge_url)
        return f'{match["name"]}"{target or ""}"'

    return _outside_code(text, [lambda part: _LINK.sub(linked, part),
                                lambda part: _SOURCE.sub(sourced, part)])  # fmt: skip


def indented(text: str) -> str:
    """The text with four spaces in front of what belongs to an item of a list, and an empty line
    between an item of several blocks and the next one."""
    found: list[str] = []
    in_item = in_fence = has_blocks = False
    for line in text.splitlines():
        if not in_fence and line[:1] not in {"", " "}:
            begins_item = _ITEM.match(line) is not None
            if begins_item and in_item and has_blocks and found[-1]:
                found.append("")
            in_item, has_blocks = begins_item, False
        if line.startswith("```"):
            in_fence = not in_fence
        has_blocks = has_blocks or not line
        spaces = len(line) - len(line.lstrip(" "))
        if in_item and not in_fence and spaces in {2, 3}:
            line = "    " + line.lstrip(" ")
        found.append(line)
    return "\n".join(found) + "\n"


def _outside_code(text: str, changes: Iterable[Callable[[str], str]]) -> str:
    """Applies changes to all but code; code inside of a link's text is a part of the link."""
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match[0])
        return f"\x00{len(held) - 1}\x00"

    text = _CODE.sub(hold, text)
    for change in changes:
        text = change(text)
    return re.sub("\x00(\\d+)\x00", lambda match: held[int(match[1])], text)


def _on_site(target: str, path: str, known: dict[str, str], forge_url: str | None) -> str | None:
    """Where a link of the page at `path` leads on the site; None when it leads nowhere there."""
    if forge_url is not None and target.startswith(forge_url):
        target = os.path.relpath(target.removeprefix(forge_url), PurePosixPath(path).parent)
    place, _, anchor = target.partition("#")
    if not place or _FOREIGN.match(target):
        return target
    goal = os.path.normpath(PurePosixPath(path).parent / place)
    here = PurePosixPath(known[path]).parent
    end = f"#{anchor}" if anchor else ""
    if goal in known:
        return os.path.relpath(known[goal], here) + end
    if goal.startswith(("docs/images/", "docs/stylesheets/")):
        return os.path.relpath(goal.removeprefix("docs/"), here)
    if goal == "docs" or not (ROOT / goal).exists():  # a page that the build makes, or a fault
        return os.path.relpath(goal.removeprefix("docs/"), here) + end
    return forge_url + goal if forge_url else None
