"""The reference of the command line in docs/cli.md, from the program's own help.

    python -m support.cli_reference     writes the blocks of docs/cli.md anew (make cli-docs)

A command has a section `### amberdb NAME` in docs/cli.md. It begins with a block between two marks,
which is made here; the prose below the block is written by hand, and stays.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from amberdb.cli.verbs import app

PAGE: Final = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN: Final = "<!-- made by `make cli-docs` -->"
END: Final = "<!-- end -->"


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command that can be run: its words, and the command, in the order of --help."""
    yield from _below([], typer.main.get_command(app))


def _below(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
    else:
        for name in inner:
            yield from _below([*words, name], inner[name])


def page(text: str) -> str:
    """The page with the block of each command as the program has it; a command that has no section
    gets one, after that of the command before it."""
    head, *sections = re.split(r"^(?=### amberdb )", text, flags=re.MULTILINE)
    prose = {section.split("\n", 1)[0]: _prose(section) for section in sections}
    parts = [head]
    for words, command in commands():
        title = f"### amberdb {' '.join(words)}"
        parts.append(f"{title}\n\n{BEGIN}\n{_block(words, command)}\n{END}\n{prose.pop(title, '')}")
    if prose:
        raise ValueError(f"no such commands: {', '.join(prose)}")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _prose(section: str) -> str:
    """What was written by hand in a section."""
    body = section.partition("\n")[2]
    return "\n" + (body.partition(END)[2] if BEGIN in body else body).strip("\n") + "\n"


def _block(words: list[str], command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [
        each
        for each in command.params
        if each.param_type_name == "option" and each.name != "help" and not each.hidden
    ]
    usage = " ".join(["amberdb", *words, *(_metavar(each) for each in arguments), "[OPTIONS]"])
    lines = ["```text", usage, "```", "", " ".join(command.help.split()), ""]
    lines += ["| argument or option | meaning |", "|---|---|"]
    lines += [f"| `{_cell(_metavar(each))}` | {_meaning(each)} |" for each in arguments]
    lines += [f"| `{_cell(_flags(each))}` | {_meaning(each)} |" for each in options]
    return "\n".join(lines)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _flags(option: Any) -> str:
    flags = ", ".join(option.opts)
    if option.secondary_opts:
        return f"{flags} / {', '.join(option.secondary_opts)}"
    if option.is_flag:
        return flags
    return f"{flags} {option.metavar or _type(option)}"


def _type(option: Any) -> str:
    return "TEXT" if option.type_descriptor.annotation is str else "N"


def _meaning(parameter: Any) -> str:
    text = _cell(parameter.help or "")
    default = parameter.default
    if parameter.param_type_name == "option" and parameter.required:
        text += " Required."
    elif default is not None and not callable(default) and not isinstance(default, bool):
        text += f" Default: `{default}`."
    elif default is True:
        text += f" Default: `{parameter.opts[0]}`."
    if parameter.envvar:
        text += f" Also from `{parameter.envvar}`."
    return text.strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
