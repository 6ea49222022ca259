"""Docstrings as Markdown: prose, tables of parameters in columns, and code.

Invariants:
- A paragraph of prose stays as it is. One whose lines have a name, two or more spaces and a text
  becomes a list of these names; any other with columns or an indent becomes a block of code.
"""

import inspect
import re

_ROW = re.compile(r"^(?P<names>[\w*.=\[\]\"]+(?:,? [\w*.=\[\]\"]+){0,4}) {2,}(?P<text>\S.*)$")
_COLUMNS = re.compile(r"\S {2,}\S")
_PAGE = re.compile(r"\bdocs/(?P<name>[\w/-]+)\.md")


def markdown(text: str) -> str:
    blocks = re.split(r"\n{2,}", inspect.cleandoc(text))
    joined = "\n\n".join(_block(block) for block in blocks) + "\n"
    return _PAGE.sub(r"[\g<name>](../\g<name>.md)", joined)


def _block(block: str) -> str:
    lines = block.splitlines()
    if (rows := _rows(lines)) is not None:
        return "\n".join(f"- `{names}`: {text}" for names, text in rows)
    if any(_COLUMNS.search(line) for line in lines) or all(line[:1] == " " for line in lines):
        return "```py\n" + inspect.cleandoc("\n" + block) + "\n```"
    return re.sub(r"(?<=[\w)]):\n(?=- )", ":\n\n", block)


def _rows(lines: list[str]) -> list[tuple[str, str]] | None:
    """The rows of a table of parameters; None where the lines are none."""
    found: list[tuple[str, str]] = []
    for line in lines:
        if row := _ROW.match(line):
            if row["text"].startswith("#"):
                return None
            found.append((row["names"], row["text"]))
        elif found and line.startswith("    "):
            names, text = found[-1]
            found[-1] = (names, f"{text} {line.strip()}")
        else:
            return None
    return found
