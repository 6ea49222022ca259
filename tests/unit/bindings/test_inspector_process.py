"""`amberdb ui` as a process: beside an application, or writing with it; it ends with a signal."""

import signal
import socket
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import amberdb
from amberdb.cli.__main__ import app
from support.inspecting import fill
from support.serving import serving

pytestmark = pytest.mark.slow  # each starts processes


def test_beside_an_application_it_reads_and_ends_by_sigterm(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        fill(db, 50)
        with serving(tmp_path / "t.amber", "--no-browser", verb="ui") as server:
            assert server.url.startswith("http://127.0.0.1:")
            with httpx.Client(follow_redirects=True) as client:
                shown = client.get(server.url)
                assert shown.status_code == 200
                assert "memory" in shown.text
                base = server.url.partition("/?")[0]
                db["profile"].put({"id": "new", "name": "seen at once"})
                assert "seen at once" in client.get(f"{base}/documents?collection=profile").text
                assert client.post(f"{base}/erase", headers={"Origin": base}).status_code == 404
                with client.stream("GET", f"{base}/changes/stream") as stream:
                    assert next(stream.iter_lines()) == ": open"
                    server.process.send_signal(signal.SIGTERM)  # a stream delays no end
                    out, err = server.process.communicate(timeout=60)
            assert (server.process.returncode, out, err) == (0, "", "")
        assert db.check().ok


def test_with_write_it_shares_the_database(tmp_path: Path) -> None:
    with amberdb.connect(tmp_path / "t.amber") as db:
        fill(db, 50)
        with serving(tmp_path / "t.amber", "--write", "--no-browser", verb="ui") as server:
            base = server.url.partition("/?")[0]
            with httpx.Client(follow_redirects=True, headers={"Origin": base}) as client:
                client.get(server.url)
                form = {"collection": "profile", "id": "lin", "confirm": "lin"}
                assert client.post(f"{base}/document/delete", data=form).status_code == 200
        assert "lin" not in db["profile"]
        assert db.check().ok


def test_what_cannot_be_shown_ends_with_one_line(tmp_path: Path) -> None:
    runner = CliRunner()
    missing = runner.invoke(app, ["ui", str(tmp_path / "none.amber"), "--no-browser"])
    assert missing.exit_code == 3
    assert not (tmp_path / "none.amber").exists()
    with amberdb.open(tmp_path / "t.amber"):
        pass
    for wrong in (
        ["--lang", "fr"],
        ["--embed", "no.such:thing"],
        ["--port", "99999999999"],
        ["--embed-url", "http://x"],
    ):
        result = runner.invoke(app, ["ui", str(tmp_path / "t.amber"), "--no-browser", *wrong])
        assert result.exit_code == 2
        assert "Traceback" not in result.output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["ui", str(tmp_path / "t.amber"), "--no-browser", "--port", port]
        result = runner.invoke(app, arguments)
    assert result.exit_code == 6
    assert "error:" in result.output
