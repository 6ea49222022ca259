"""llms.txt, the index of the documents for language models (llmstxt.org), and llms-full.txt, the
documents themselves.

    python -m tools.llms                      writes llms.txt
    python -m tools.llms --full FILE          writes all documents into one file

Invariants:
- The index is made of the guide's first paragraph, and of each page's title and first sentences; of
  a page that opens with a sample, of its headings.
- Every page of docs/ is in it once; of the decisions, their list.
"""

import argparse
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
INDEX: Final = ROOT / "llms.txt"
GUIDE: Final = "src/amberdb/guide.md"
ENTRANCE: Final = (GUIDE, "README.md", "README.zh.md")
INSIDE: Final = (
    "architecture",
    "bugs",
    "crash-tests",
    "format",
    "mutants",
    "reading-the-source",
)
"""Pages about the sources, which a program that uses AmberDB does not need."""

SECTIONS: Final = {"docs": "Documentation", "howto": "How to", "zh": "Chinese"}
"""The names of folders, where they are other words."""
CHARACTERS_MIN: Final = 50
"""A first sentence that is shorter is followed by the next one."""

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_SENTENCE = re.compile(r".+?(?:[.:](?=\s|$)|\u3002|$)", re.S)


def pages() -> dict[str, list[str]]:
    """The sections of the index, with the path of each page."""
    documents = [path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md"))]
    sections: dict[str, list[str]] = {"Start": list(ENTRANCE), "Documentation": []}
    optional: list[str] = []
    for page in documents:
        folder = page.parent.name
        if folder == "decisions" or (folder == "docs" and page.stem in INSIDE):
            if folder != "decisions" or page.name == "README.md":
                optional.append(page.as_posix())
        else:
            section = SECTIONS.get(folder, folder.capitalize())
            sections.setdefault(section, []).append(page.as_posix())
    return {**sections, "Optional": optional}


def title(text: str) -> str:
    """The first heading."""
    found = re.search(r"^# +(.+)$", text, re.M)
    return found[1].strip() if found else ""


def opening(text: str) -> str:
    """The first paragraph below the title, without links; empty where a page opens with another
    thing: a sample, a table, a picture."""
    for block in re.split(r"\n\s*\n", text.partition("\n")[2].strip()):
        if not re.match(r"\[|\*\*English", block):  # the line of languages
            is_prose = re.match(r"[#|<>!~-]|```", block) is None
            return " ".join(_LINK.sub(r"\1", block).replace("**", "").split()) if is_prose else ""
    return ""


def about(text: str) -> str:
    """What a page is about: its first sentences, or its headings."""
    said = ""
    for sentence in _SENTENCE.findall(opening(text)):
        said += sentence
        if len(said) >= CHARACTERS_MIN or not sentence.isascii():
            break
    return said.rstrip(":.\u3002") or "; ".join(re.findall(r"^## +(.+)$", text, re.M))


def index() -> str:
    """The text of llms.txt."""
    guide = (ROOT / GUIDE).read_text(encoding="utf-8")
    lines = ["# AmberDB", "", f"> {opening(guide)}"]
    for section, paths in pages().items():
        lines += ["", f"## {section}", ""]
        for path in paths:
            text = (ROOT / path).read_text(encoding="utf-8")
            lines.append(f"- [{title(text)}]({path}): {about(text)}")
    return "\n".join(lines) + "\n"


def full() -> str:
    """The text of llms-full.txt: the pages of the index, without those about the sources."""
    every = [path for section, paths in pages().items() if section != "Optional" for path in paths]
    texts = [(path, (ROOT / path).read_text(encoding="utf-8").strip()) for path in every]
    return "\n\n".join(f"<!-- {path} -->\n\n{text}" for path, text in texts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes llms.txt.")
    parser.add_argument("--full", metavar="FILE", type=Path, help="all documents, into this file")
    target: Path | None = parser.parse_args().full
    if target is None:
        INDEX.write_text(index(), encoding="utf-8")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(full(), encoding="utf-8")


if __name__ == "__main__":
    main()
