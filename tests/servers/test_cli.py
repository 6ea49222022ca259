"""The command line with the URL of a server in place of a directory."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from amberdb.cli.__main__ import app
from support.servers import PASSWORD


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    assert PASSWORD not in result.output
    return result.stdout or result.stderr


def read(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_commands_take_the_url_of_a_server(url: str, tmp_path: Path) -> None:
    assert "no database" in run("find", url, "note", code=3)
    run("put", url, "note", '{"id": "a", "text": "the umbrella"}')
    lines = tmp_path / "notes.jsonl"
    lines.write_text('{"id": "b", "text": "雨伞"}\n{"id": "c", "n": 1}\n')
    run("import", url, "note", str(lines), "--index", "n")
    assert read("get", url, "note", "a")["text"] == "the umbrella"
    found = run("find", url, "note", "--where", '{"n": 1}', "--json")
    assert '"c"' in found
    assert read("info", url)["collections"]["note"]["documents"] == 3
    assert len(run("export", url, "note").splitlines()) == 3
    assert read("check", url)["ok"]
    assert "is not there on PostgreSQL" in run("compact", url, code=2)
    assert "is not there on PostgreSQL" in run("backup", url, str(tmp_path / "b"), code=2)
    for command in ("repair", "rescue"):
        assert "is for a directory" in run(command, url, code=2)
