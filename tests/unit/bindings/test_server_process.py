"""`amberdb serve` as a process: it says where it listens, ends by SIGTERM with everything on disk,
and refuses what would be unsafe."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import amberdb
from amberdb.cli.__main__ import app
from support.serving import Server, serving

TOKEN = "a-token-of-24-characters"

pytestmark = pytest.mark.slow  # each starts processes


def test_what_was_answered_survives_a_kill_and_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    path, file = tmp_path / "t.amber", tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with serving(path, "--token-file", str(file)) as server, asking(server) as client:
        assert client.get("/stats").status_code == 401
        for n in range(20):
            given = {"content": f"memory {n}", "memory_layer": "event"}
            right = {"Authorization": f"Bearer {TOKEN}"}
            client.post("/memory/user/lin", json=given, headers=right).raise_for_status()
        server.process.kill()
        server.process.wait()
    with serving(path) as server, asking(server) as client:
        found = client.get("/memory/user/lin/events").json()["memories"]
        assert [each["content"] for each in found] == [f"memory {n}" for n in reversed(range(20))]
        server.process.send_signal(signal.SIGTERM)
        out, err = server.process.communicate(timeout=60)
        assert (server.process.returncode, out, err) == (0, "", "")
    with amberdb.open(path) as db:
        assert db.recovery is None  # it was closed
        assert db.collection("event").count() == 20
        assert db.check().ok


PLUGINS = """
from amberdb.chat import CollectionSink

def embed(texts):
    return [[float("tea" in text), 1.0] for text in texts]

def sink(db):
    return CollectionSink(db, "elsewhere")
"""


def test_options_of_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugins.py").write_text(PLUGINS)
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbf" + TOKEN.encode())
    monkeypatch.chdir(tmp_path)
    options = (
        "--embed my_plugins:embed --dim 2 --embed-name mine --sink my_plugins:sink"
        " --name shop --retention event=1 --retention log=never --category profile=hobby"
        " --trusted-proxy 127.0.0.1 --requests-per-s 0.001 --token-file token"
    )
    with serving(tmp_path / "t.amber", *options.split()) as server, asking(server) as client:
        client.headers = {"Authorization": f"Bearer {TOKEN}"}
        given = {"content": "tea", "memory_layer": "profile", "category": "hobby"}
        client.post("/memory/user/lin", json=given).raise_for_status()
        codes = [
            client.get("/health", headers={"X-Forwarded-For": address}).status_code
            for address in ("9.9.9.1", "9.9.9.1", "9.9.9.2")
        ]
        assert codes == [200, 429, 200]  # each address may ask once
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=60)
    with amberdb.open(tmp_path / "t.amber") as db:
        assert {"elsewhere", "shop_profile"} <= set(db.collections())
        assert "embedding" in db.collection("shop_profile").find()[0]


@pytest.mark.campaign
def test_two_servers_and_the_command_line_share_a_database(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with (
        serving(path) as first,
        serving(path) as second,
        asking(first) as one,
        asking(second) as other,
    ):
        clients = [one, other]
        for n, client in enumerate(clients * 5):
            given = {"content": f"memory {n}", "memory_layer": "event"}
            client.post("/memory/user/lin", json=given).raise_for_status()
        for verb in (["put", str(path), "note", '{"id": "a"}'], ["compact", str(path)]):
            assert CliRunner().invoke(app, verb).exit_code == 0
        for client in clients:
            assert len(client.get("/memory/user/lin/events").json()["memories"]) == 10
        first.process.kill()
        first.process.wait()
        given = {"content": "the last", "memory_layer": "event"}
        other.post("/memory/user/lin", json=given).raise_for_status()
        second.process.send_signal(signal.SIGTERM)
        second.process.communicate(timeout=60)
    with amberdb.open(path) as db:
        assert db.recovery is None
        assert db.collection("note").get("a") == {"id": "a"}
        assert db.check().ok


def test_where_a_server_cannot_be(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "u.amber"):
        with serving(tmp_path / "t.amber") as server:
            port = server.url.rpartition(":")[2]
            refused(["serve", str(tmp_path / "v.amber"), "--port", port], 6, "in use")
            assert not (tmp_path / "v.amber").exists()
            server.process.send_signal(signal.SIGINT)
            _, err = server.process.communicate(timeout=60)
            assert (server.process.returncode, err) == (130, "error: interrupted\n")
        command = [sys.executable, "-m", "amberdb.cli", "serve", str(tmp_path / "u.amber")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 3
        assert f"process {os.getpid()}" in ended.stderr
        assert "amberdb.connect()" in ended.stderr


def asking(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=30)


def refused(arguments: list[str], code: int, words: str, **environment: str) -> None:
    """With one line."""
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_would_be_unsafe_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    serve = ["serve", str(tmp_path / "t.amber")]
    refused([*serve, "--host", "0.0.0.0"], 2, "set a token")
    refused([*serve, "--host", "0.0.0.0"], 2, "at least 16", AMBERDB_TOKEN="short")
    refused([*serve, "--model", "m"], 2, "give --model-url")
    for option, wrong, words in (
        ("--embed", "x:y", "--dim"), ("--sink", "nowhere:x", "nowhere"), ("--sink", "x", "module:"),
        ("--sink", "json:x", "json"), ("--retention", "event=a", "number"),
        ("--retention", "turn=1", "profile, event"), ("--category", "log=x", "profile, event"),
        ("--trusted-proxy", "proxy", "address"),
    ):  # fmt: skip
        refused([*serve, option, wrong], 2, words)
    assert not (tmp_path / "t.amber").exists()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from amberdb.cli.__main__ import main\n"
        f"sys.argv = ['amberdb', 'serve', {str(tmp_path / 't.amber')!r}]\nmain()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert 'pip install "amberdb[cli,server]"' in ran.stderr


def test_no_other_module_loads_the_extra() -> None:
    code = "import sys, amberdb.cli.verbs, amberdb.aio; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "amberdb" in loaded
    assert not loaded & {"fastapi", "uvicorn", "starlette", "pydantic"}
