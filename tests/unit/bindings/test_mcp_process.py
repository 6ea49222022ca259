"""`amberdb mcp` as a process: what was answered survives a kill, another process is named, and
nothing but the protocol is on stdout."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

import amberdb
from support.mcp_stdio import AMBERDB, ServerGone, StdioClient, talking

pytestmark = pytest.mark.slow  # each starts processes

TOKEN: Final = "a-token-of-24-characters"
WITHOUT: Final = """
import sys
sys.modules["mcp"] = None  # import now raises ModuleNotFoundError
from amberdb.cli.__main__ import main
sys.argv = ["amberdb", "mcp", sys.argv[1]]
main()
"""


def entity(n: int) -> dict[str, Any]:
    return {"name": f"实体{n}", "entityType": "数字", "observations": [f"第{n}条观察，内容是中文"]}


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    answered: list[str] = []
    with pytest.raises(ServerGone):
        store_until_it_is_killed(path, answered)
    assert len(answered) > 40
    with talking([*AMBERDB, path]) as client:
        graph = client.call("read_graph")["structuredContent"]
        stored = [each["name"] for each in graph["entities"]]
        assert stored[: len(answered)] == answered
        assert len(stored) <= len(answered) + 1
        found = client.call("search_nodes", query="第7条")["structuredContent"]["entities"]
        assert found == [entity(7)]
    with amberdb.open(path) as db:
        assert db.recovery is None  # it was closed
        assert db.check().ok


def store_until_it_is_killed(path: Path, answered: list[str]) -> None:
    with talking([*AMBERDB, path]) as client:
        killer = threading.Timer(0.0, client.process.kill)
        for n in range(10_000):
            client.call("create_entities", entities=[entity(n)])
            answered.append(f"实体{n}")
            if n == 40:
                killer.start()  # at some moment of the calls that follow


@pytest.mark.campaign
def test_a_database_that_is_open_elsewhere_ends_no_server(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path) as db, talking([*AMBERDB, path]) as client:
        db.collection("other").put({"id": "a"})
        answer = client.call("recall", query="喝茶")
        assert answer["isError"] is True
        text = answer["content"][0]["text"]
        assert f"is open in process {os.getpid()}" in text
        assert "--read-only" in text
        assert "error" in client.answer("resources/read", uri="memory://recent")
        assert "error" in client.answer("resources/subscribe", uri="memory://recent")
        db.close()
        client.call("remember", text="third")
        assert len(memories(client, "third")) == 1


@pytest.mark.campaign
def test_clients_share_a_memory(tmp_path: Path) -> None:
    """Two clients of the official server lose writes of each other."""
    path = tmp_path / "t.amber"
    with talking([*AMBERDB, path]) as first, talking([*AMBERDB, path]) as second:

        def store(client: StdioClient, start: int) -> None:
            for n in range(start, 200, 2):
                client.call("create_entities", entities=[entity(n)])

        threads = [
            threading.Thread(target=store, args=(client, start))
            for start, client in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in (first, second):
            graph = client.call("read_graph")["structuredContent"]
            names = {each["name"] for each in graph["entities"]}
            assert names == {f"实体{n}" for n in range(200)}
        second.request("resources/subscribe", uri="memory://recent")
        first.call("remember", text="喜欢喝茶")
        assert second.told()["params"] == {"uri": "memory://recent"}
        with talking([*AMBERDB, path, "--read-only"]) as reader:
            reader.request("resources/subscribe", uri="memory://recent")
            first.call("remember", text="second")
            assert reader.told()["params"] == {"uri": "memory://recent"}
            assert len(memories(reader, "second")) == 1
        leader = max((first, second), key=lambda each: each.process.pid == owner(path))
        other = second if leader is first else first
        leader.process.kill()
        leader.process.wait()
        assert [each["text"] for each in memories(other, "喝茶")] == ["喜欢喝茶"]
        other.call("remember", text="third")
        assert len(memories(other, "third")) == 1
        receipt = other.call("forget", entity="user", reason="asked")
        assert not receipt.get("isError"), receipt
        leader.process.returncode = 0  # as if it had ended by itself


def owner(path: Path) -> int:
    """The process that leads."""
    return int((path / "LOCK").read_text().split(" ")[0])


def memories(client: StdioClient, query: str) -> list[Any]:
    found: list[Any] = client.call("recall", query=query)["structuredContent"]["memories"]
    return found


@pytest.mark.campaign
def test_nonsense_and_failures_end_no_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with talking([*AMBERDB, tmp_path / "t.amber"], log=log) as client:
        client.send_raw(b"garbage")
        client.send_raw(b'{"jsonrpc": "2.0", "id": {}, "method": 5}')
        client.send_raw(b"\xff\xfe{}")
        assert "error" in client.answer("no/such/method")
        assert "error" in client.answer("prompts/get", name="none")
        assert client.call("create_entities", entities="lin")["isError"] is True
        assert client.call("recall", query="x" * 100_000)["structuredContent"]["memories"] == []
        long = {**entity(1), "name": "x" * 1_000}
        assert client.call("create_entities", entities=[long])["isError"] is True
        assert client.call("read_graph")["structuredContent"]["entities"] == []
    with talking([*AMBERDB, tmp_path / "none.amber", "--read-only"]) as client:
        assert "there is no database" in client.call("stats")["content"][0]["text"]
    (tmp_path / "file").write_text("no database")
    with talking([*AMBERDB, tmp_path / "file"]) as client:
        assert client.call("stats")["isError"] is True


@pytest.mark.campaign
def test_a_full_disk_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with talking([*AMBERDB, path]) as client:
        client.call("remember", text="before")
        limit = sum(file.stat().st_size for file in path.rglob("*.wal"))
        resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        texts = [client.call("remember", text=f"{n} " * 5_000) for n in range(2_000 // 10)]
        refused = [each for each in texts if each.get("isError")]
        assert refused
        assert "Traceback" not in str(refused)
        assert [each["text"] for each in memories(client, "before")] == ["before"]


def test_a_signal_closes_the_database_of_the_default_path(tmp_path: Path) -> None:
    with talking(AMBERDB, env={"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}) as client:
        client.call("remember", text="x")
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(60) == 0
    (path,) = tmp_path.rglob("memory.amber")
    with amberdb.open(path) as db:
        assert db.recovery is None


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    path = str(tmp_path / "t.amber")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, path], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert 'pip install "amberdb[cli,mcp]"' in ran.stderr


# -- HTTP ----------------------------------------------------------------------------------------


@contextmanager
def over_http(path: Path) -> Generator[str]:
    command = [*AMBERDB, str(path), "--http", "127.0.0.1:0", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AMBERDB_TOKEN": TOKEN},
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_http_answers_this_machine_with_the_token_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    right = {
        "Authorization": f"Bearer {TOKEN}",
        "Accept": "application/json, text/event-stream",
    }
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "tests", "version": "1"},
        },
    }
    with over_http(path) as url, httpx.Client(timeout=60) as client:
        for wrong, status in (
            ({"Authorization": "Bearer another"}, 401),
            ({"Authorization": TOKEN}, 401),
            ({"Authorization": ""}, 401),
            ({"Host": "example.com"}, 421),
            ({"Origin": "https://example.com"}, 403),
        ):
            answer = client.post(url, json=hello, headers={**right, **wrong})
            assert answer.status_code == status, wrong
        answer = client.post(url, json=hello, headers={**right, "Origin": "http://localhost:3000"})
        assert answer.status_code == 200
        session = {**right, "Mcp-Session-Id": answer.headers["mcp-session-id"]}
        client.post(
            url,
            json={"jsonrpc": "2.0", "method": "notifications/initialized"},
            headers=session,
        )
        call = {"name": "remember", "arguments": {"text": "喜欢喝茶"}}
        request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        answer = client.post(url, json=request, headers=session)
        assert re.search(r'"isError":\s*false', answer.text), answer.text
    with amberdb.open(path) as db:
        assert db.recovery is None
        assert [each["content"] for each in db.collection("profile").find({})] == ["喜欢喝茶"]
