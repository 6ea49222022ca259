"""The entry point of `amberdb` and `python -m amberdb.cli`: docs/cli.md.

    verbs      the application with all commands
    verb       errors, exit codes, opening     arguments   options that commands share
    output     JSON and tables                 bars        progress

Invariants:
- The extra `cli` installs typer and rich. This module can be imported without them; main() then
  prints what to install. No other package of amberdb imports them.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amberdb.cli.verbs import app as app

_EXTRA = {"typer", "click", "rich"}


def __getattr__(name: str) -> Any:
    """The Typer application `app`, imported on first use."""
    if name == "app":
        from amberdb.cli.verbs import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Runs the command line, and exits."""
    try:
        from amberdb.cli.verbs import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(
            f"error: the command line needs {error.name}, which is not installed: "
            'pip install "amberdb[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        # JSON is always UTF-8; a stream that was replaced may have no reconfigure().
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
