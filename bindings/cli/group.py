"""The group of all commands, for typer: a command's module is imported when it is called.

Invariants:
- Starting one command, and completing its name in a shell, imports no other command.
- A wrong argument is one line on stderr, `error: ...`, and code 2, as every other error.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperGroup

from amberdb.cli.verb import Exit, say

CODES: Final = (
    "Exit codes: 0 done; 1 nothing found, diff or check found something, repair is needed, or a "
    "proof failed; 2 wrong usage; 3 the database cannot be opened (missing, locked, foreign, "
    "newer); 4 damage; 5 bad lines in the input; 6 not stored (disk full, failed sync, busy); "
    "130 interrupted; 141 the reader of the output ended."
)

# typer brings its own copy of click, or imports click, by its version: this is either one's
# ClickException.
_WrongUse: Final[type[Exception]] = typer.BadParameter.__mro__[2]


class Commands(Mapping[str, Any]):
    """The commands of a table of "module:function", each made on first use. A function may also be
    a Typer application with commands of its own."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, _, function = self._table[name].partition(":")
            found = getattr(import_module(f"amberdb.cli.{module}"), function)
            self._made[name] = _command(name, found)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


class Group(TyperGroup):
    """A group whose commands are those of its `table`."""

    table: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Commands(self.table)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of the table."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists each command with the first sentence of its help, whole."""
        rows = [(name, _sentence(self.commands[name].help or "")) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, *args: Any, **more: Any) -> Any:
        """Runs a command, and exits; with `standalone_mode=False` it returns its exit code."""
        run: Any = super().main
        if not more.pop("standalone_mode", True):
            return run(*args, **more, standalone_mode=False)
        try:
            code = run(*args, **more, standalone_mode=False)
        except _WrongUse as error:
            sys.exit(_tell(error))
        except typer.Abort:
            sys.exit(Exit.INTERRUPTED)
        sys.exit(code if isinstance(code, int) else Exit.OK)


def _command(name: str, found: Callable[..., None] | typer.Typer) -> Any:
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_command(found)
        command.name = name
        return command
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, epilog=CODES)(found)
    return typer.main.get_command(single)


def _sentence(help: str) -> str:
    return " ".join(help.partition(". ")[0].split()).rstrip(".")


def _tell(error: Any) -> Exit:
    """Reports wrong use: a missing or an unknown argument, or a value that is none."""
    context = error.ctx if hasattr(error, "ctx") else None
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return Exit.USAGE
    help_of = "" if context is None else f" (see `{context.command_path} --help`)"
    say(f"error: {error.format_message().rstrip('.')}{help_of}")
    return Exit.USAGE
