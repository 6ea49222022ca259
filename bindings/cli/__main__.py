"""The entry point of `amberdb` and `python -m amberdb.cli`: docs/cli.md.

    verbs      the application, and in which module each command is
    group      loads commands, reports wrong use     verb        errors, exit codes, opening
    arguments  options that commands share           completion  names for a shell
    output     JSON and tables                       formats     CSV, TSV, Markdown, Parquet
    bars       progress                              embedding   --embed-url and --embed-model

    documents  collections  transfer  care  status  serving      the commands

Invariants:
- The extra `cli` installs typer and rich. This module can be imported without them; main() then
  prints what to install. No other package of amberdb imports them.
"""

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amberdb.cli.verbs import app as app

_EXTRA = ("typer", "rich")


def __getattr__(name: str) -> Any:
    """The Typer application `app`, imported on first use."""
    if name == "app":
        from amberdb.cli.verbs import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Runs the command line, and exits."""
    for name in _EXTRA:
        if find_spec(name) is None:
            print(
                f"error: the command line needs {name}, which is not installed: "
                'pip install "amberdb[cli]"',
                file=sys.stderr,
            )
            sys.exit(2)
    from amberdb.cli.verbs import app

    for stream in (sys.stdout, sys.stderr):
        # JSON is always UTF-8; a stream that was replaced may have no reconfigure().
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
    app(prog_name="amberdb")


if __name__ == "__main__":
    main()
