"""Docstrings as Markdown: prose, tables of parameters in columns, and code.

Invariants:
- The invariants of a module are for who reads its source, and are left out.
- A paragraph of prose stays as it is. One whose lines have a name, two or more spaces and a text
  becomes a list of these names; any other with columns or an indent becomes a block of code.
"""

import inspect
import re

_ROW = re.compile(r"^(?P<names>[\w*.=\[\]\"`]+(?:,? [\w*.=\[\]\"`]+){0,4}) {2,}(?P<text>\S.*)$")
_COLUMNS = re.compile(r"\S {2,}\S")
_PAGE = re.compile(r"\bdocs/(?P<name>[\w/-]+)\.md")


def markdown(text: str) -> str:
    found: list[str] = []
    code: list[str] = []
    text = inspect.cleandoc(text).partition("\nInvariants:")[0]
    for block in [*re.split(r"\n{2,}", text), ""]:
        if block and _is_code(block):
            code.append(block)
            continue
        if code:
            found.append(_fence(inspect.cleandoc("\n" + "\n\n".join(code))))
            code = []
        found.append(_prose(block))
    return _PAGE.sub(r"[\g<name>](../\g<name>.md)", "\n\n".join(found).rstrip()) + "\n"


def _is_code(block: str) -> bool:
    lines = block.splitlines()
    if _rows(inspect.cleandoc("\n" + block).splitlines()) is not None:
        return False
    return all(line[:1] == " " for line in lines) or any(_COLUMNS.search(line) for line in lines)


def _fence(code: str) -> str:
    kind = "py" if re.search(r"[(=]|^import ", code) else "text"
    return f"```{kind}\n{code}\n```"


def _prose(block: str) -> str:
    """A paragraph, or the list that a table of parameters becomes."""
    rows = _rows(inspect.cleandoc("\n" + block).splitlines())
    if not rows:
        return block.replace(":\n- ", ":\n\n- ")
    return "\n".join(f"- `{names.replace('`', '')}`: {text}" for names, text in rows)


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
