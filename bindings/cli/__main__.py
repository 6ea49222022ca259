"""The command line `amberdb`, also `python -m amberdb.cli`: see docs/cli.md.

    cli_verbs   the verbs         cli_output   tables, JSON, errors and exit codes
    cli_import  import, export    cli_demo     the demo

Invariants:
- typer and rich are the extra `cli`. This module imports without them, and main() then says
  what to install; nothing else in the package imports them.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amberdb.cli.verbs import app as app

_EXTRA = {"typer", "click", "rich"}


def __getattr__(name: str) -> Any:
    """`app`, the Typer object, on first use."""
    if name == "app":
        from amberdb.cli.verbs import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Runs the command line and exits."""
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
        # JSON is UTF-8 wherever it goes; reconfigure is missing where somebody replaced them.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
