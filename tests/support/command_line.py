"""The command line in process, on the database of a test."""

import json
from pathlib import Path
from typing import Any, final

from typer.testing import CliRunner, Result

import amberdb
from amberdb.cli.__main__ import app


@final
class CommandLine:
    """Runs commands on `t.amber` in a directory; asserts that none ends in a traceback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "t.amber")

    def __call__(
        self, verb: str, *arguments: str, code: int = 0, input: str | bytes | None = None
    ) -> Result:
        """Runs a verb, also `index add`, on the database; asserts its exit code."""
        return self.of([*verb.split(), self.path, *arguments], code=code, input=input)

    def of(self, command: list[str], *, code: int = 0, input: str | bytes | None = None) -> Result:
        """Runs a whole command line."""
        result = CliRunner().invoke(app, command, input=input)
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code not in (0, 1, 5)) or code in (1, 5)
        return result

    def read(self, verb: str, *arguments: str, code: int = 0) -> Any:
        """The one JSON document that a verb prints with --json."""
        return json.loads(self(verb, *arguments, "--json", code=code).stdout)

    def documents(self, collection: str = "x") -> list[Any]:
        """All documents, as JSON has them."""
        return [json.loads(line) for line in self("export", collection).stdout.splitlines()]

    def check(self) -> None:
        """Fails unless the database is sound."""
        with amberdb.open(self.path, background=False) as db:
            report = db.check()
        assert report.ok, report
