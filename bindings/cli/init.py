"""The command init: a directory with a database, a program that uses it, and a guide for coding
assistants.

Invariants:
- Nothing is overwritten: when one of its files is there, none is made.
- The programs are those of amberdb.guide(), below its heading Programs.
"""

import os
import re
import shutil
import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

import amberdb
from amberdb.cli.arguments import AsJson
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, fail, verb

DATABASE: Final = "memory.amber"
PROGRAM: Final = "main.py"
GUIDE: Final = "AGENTS.md"

_PROGRAM = re.compile(r"^### (\w+)\n+```python\n(.*?)^```$", re.M | re.S)
_PREFACE: Final = f"""\
# This directory

`{PROGRAM}` is a program over the AmberDB database `{DATABASE}`, a directory that is read and
written through AmberDB alone. Run it with `python {PROGRAM}`. `amberdb info {DATABASE}` shows the
collections, `amberdb find` and `amberdb search` the documents, also while the program runs.

The rest of this file is the output of `amberdb.guide()`.

"""


class Template(StrEnum):
    """What the program is about."""

    NOTES = "notes"
    CHAT = "chat"
    AGENT = "agent"


_FOUND: Final = {
    Template.NOTES: "note umbrella",
    Template.CHAT: "main_context flight",
    Template.AGENT: "profile allergic",
}
"""A collection of the program, and a word that is found there once it has run."""


@verb
def init(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="It is made when missing.", show_default=False)
    ],
    template: Annotated[
        Template,
        typer.Option(metavar="NAME", help="notes, chat, or agent: the memory of an agent."),
    ] = Template.NOTES,
    as_json: AsJson = False,
) -> None:
    """Makes a database, a short program that uses it, and a guide for coding assistants."""
    paths = {name: os.path.join(directory, name) for name in (DATABASE, PROGRAM, GUIDE)}
    there = [path for path in paths.values() if os.path.lexists(path)]
    if there:
        fail(f"nothing was made, since {', '.join(there)} is there already", Exit.USAGE)
    guide = amberdb.guide()
    os.makedirs(directory, exist_ok=True)
    for name, text in ((PROGRAM, programs(guide)[template]), (GUIDE, _PREFACE + guide)):
        with open(paths[name], "x", encoding="utf-8") as file:
            file.write(text)
    amberdb.open(paths[DATABASE]).close()
    if as_json:
        emit(paths)
    else:
        for name, about in (
            (DATABASE, "the database, empty"),
            (PROGRAM, "a program that uses it"),
            (GUIDE, "how to use AmberDB, for coding assistants"),
        ):
            show(f"{paths[name]}  {about}")
        show_next(directory, template, is_made=True)


def show_next(directory: str, template: Template, *, is_made: bool) -> None:
    """Prints the commands that come next, for a directory that init has made or will make."""
    program, database = (os.path.join(directory, name) for name in (PROGRAM, DATABASE))
    amber = _command("amberdb")
    show("next:")
    if not is_made:
        show(f"  {amber} init {directory}")
    show(f"  {_command('python')} {program}")
    if is_made:
        show(f"  {amber} info {database}")
    show(f"  {amber} search {database} {_FOUND[template]}")


def _command(name: str) -> str:
    """How to call a program of this environment: by its name, or by its path where the shell does
    not find it."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    if not os.path.exists(path) or shutil.which(name) == path:
        return name
    return min(path, os.path.relpath(path), key=len)


def programs(guide: str) -> dict[str, str]:
    """The programs of the guide, by the name of their template."""
    return dict(_PROGRAM.findall(guide))
