"""The HTTP server: the routes that users described, who is served, and what is refused how."""

import re
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from amberdb import BusyError, StorageError
from amberdb.server import ServerOptions, serve
from amberdb.server.guard import CLIENTS_MAX, Rates
from amberdb.server.service import LIMIT_MAX
from support.asking import assert_problem, run, served
from support.databases import SMALL, FakeClock

TOKEN = "a-token-of-24-characters"
PAGE = Path(__file__).parents[3] / "docs/server.md"


def test_the_requests_of_the_users_document(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            await told(client, "user", "user123")
            await told(client, "agent", "agent7")

    async def told(client: httpx.AsyncClient, memory_type: str, entity: str) -> None:
        own = f"/memory/{memory_type}/{entity}"
        stored = await client.post(
            own,
            json={
                "content": "用户是一名软件工程师，毕业于北京大学",
                "memory_layer": "profile",
            },
        )
        assert stored.status_code == 200
        (done,) = stored.json()["outcomes"]
        assert (done["action"], done["memory_layer"]) == ("insert", "profile")
        event = await client.post(
            own,
            json={
                "content": "用户今天下午参加了技术分享会，讨论了人工智能的应用",
                "memory_layer": "event",
                "is_permanent": False,
            },
        )
        event_id = event.json()["outcomes"][0]["memory_id"]
        extracted = await client.post(
            own,
            json={
                "content": "用户今天告诉我他擅长游泳。他上午提交了代码。",
                "auto_extract": True,
            },
        )
        assert {each["memory_layer"] for each in extracted.json()["outcomes"]} == {
            "profile",
            "event",
        }
        profile = (await client.get(f"{own}/profile")).json()["memories"]
        assert profile[-1]["content"] == "用户是一名软件工程师，毕业于北京大学"
        assert {each["memory_type"] for each in profile} == {memory_type}
        events = (await client.get(f"{own}/events?limit=50")).json()["memories"]
        assert events[-1]["id"] == event_id
        assert events[-1]["expiry_date"]

        changed = await client.put(
            f"{own}/profile/{done['memory_id']}",
            json={"content": "用户是一名高级软件工程师", "reason": "补充了具体的职级信息"},
        )
        assert changed.json()["reason"] == "补充了具体的职级信息"
        changed = await client.put(
            f"{own}/event/{event_id}",
            json={"content": "用户下午参加了技术分享会", "reason": "补充了会议的具体主题"},
        )
        assert changed.json()["action"] == "update"
        for layer, id in (("profile", done["memory_id"]), ("event", event_id)):
            assert (await client.delete(f"{own}/{layer}/{id}")).json()["action"] == "delete"
        logs = await client.get(f"/memory/{done['memory_id']}/logs?memory_layer=profile")
        assert [each["action"] for each in logs.json()["logs"]] == ["delete", "update", "insert"]

    run(work)


def test_pages_go_on_at_their_cursor(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            for n in range(5):
                given = {"content": f"event {n}", "memory_layer": "event"}
                await client.post("/memory/user/lin", json=given)
            found: list[str] = []
            after: dict[str, str] = {}
            while True:
                page = await client.get("/memory/user/lin/events", params={"limit": 2, **after})
                found += [each["content"] for each in page.json()["memories"]]
                if page.json()["cursor"] is None:
                    break
                after = {"after": page.json()["cursor"]}
            assert found == [f"event {n}" for n in reversed(range(5))]
            wrong = await client.get("/memory/user/lin/events?after=nonsense")
            assert_problem(wrong, 422, "cursor")

    run(work)


def test_the_log_of_a_memory_comes_in_pages_of_the_limit(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, service):
            given = {"content": "content 0", "memory_layer": "profile"}
            done = (await client.post("/memory/user/lin", json=given)).json()
            id = done["outcomes"][0]["memory_id"]
            for n in range(1, 105):
                await service.memory.update("profile", id, content=f"content {n}")
            path = f"/memory/{id}/logs"
            found: list[str] = []
            sizes: list[int] = []
            after: dict[str, str] = {}
            while True:
                page = (await client.get(path, params={"limit": 40, **after})).json()
                sizes.append(len(page["logs"]))
                found += [each["id"] for each in page["logs"]]
                if page["cursor"] is None:
                    break
                after = {"after": page["cursor"]}
            assert sizes == [40, 40, 25]
            assert len(set(found)) == 105
            assert len((await client.get(path)).json()["logs"]) == 100, "by default"
            for wrong in (0, LIMIT_MAX + 1):
                response = await client.get(path, params={"limit": wrong})
                assert_problem(response, 422, "limit")
            whole = await client.get(path, params={"limit": LIMIT_MAX})
            assert len(whole.json()["logs"]) == 105

    run(work)


def test_search_forget_chat_and_stats(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, service):
            for entity in ("lin", "wang"):
                given = {"content": f"{entity} likes green tea", "memory_layer": "profile"}
                await client.post(f"/memory/user/{entity}", json=given)
            hits = await client.get("/memory/search", params={"text": "tea", "entity_id": "lin"})
            assert [hit["document"]["entity_id"] for hit in hits.json()["hits"]] == ["lin"]
            hits = await client.get("/memory/search?text=tea&memory_layer=profile")
            assert len(hits.json()["hits"]) == 2
            receipt = (await client.delete("/memory/user/lin")).json()
            assert (receipt["profile"], receipt["is_compacted"]) == (1, True)
            hits = await client.get("/memory/search", params={"text": '"-tea" ?'})
            assert len(hits.json()["hits"]) == 1
            hits = await client.get("/memory/search", params={"query": "+tea -likes"})
            assert hits.json()["hits"] == []
            for content in ("where is the umbrella", "in the car"):
                given = {"content": content, "memory_layer": "event"}
                await client.post("/memory/user/wang", json=given)
            for asked, count in (("", 1), ("&neighbors=true", 2)):
                hits = await client.get(f"/memory/search?text=umbrella{asked}")
                assert len(hits.json()["hits"]) == count
            search = {"text": "umbrella car", "limit": "1"}
            page = (await client.get("/memory/search", params=search)).json()
            search["after"] = page["cursor"]
            rest = (await client.get("/memory/search", params=search | {"limit": "9"})).json()
            assert len(rest["hits"]) == 1
            assert rest["hits"] != page["hits"]
            assert rest["cursor"] is None
            grouped = {"text": "umbrella car", "group_by": "entity_id"}
            assert len((await client.get("/memory/search", params=grouped)).json()["hits"]) == 1
            for wrong in (
                {"query": '"tea'},
                {"text": "tea", "query": "tea"},
                {"text": "tea", "after": "nonsense"},
                {"text": "tea", "group_by": ""},
                {},
            ):
                assert (await client.get("/memory/search", params=wrong)).status_code == 422

            turn = {
                "user_message": "你好",
                "assistant_message": "您好！",
                "conversation_id": "conv_123",
                "user_id": "user_456",
            }
            saved = (await client.post("/chat", json=turn)).json()
            assert saved["hot_stored"]
            assert not saved["sink_stored"]
            stats = (await client.get("/stats")).json()
            assert stats["chat"]["pending_queue_length"] == 1
            assert stats["database"]["collections"]["profile"]["documents"] == 1
            flushed = (await client.post("/memory/flush")).json()
            assert flushed == {
                "success": True,
                "total_pending": 1,
                "flushed_count": 1,
                "failed_count": 0,
            }
            assert await service.db["chat_archive"].count() == 1
            turns = (await client.get("/chat/conv_123")).json()["turns"]
            assert [each["id"] for each in turns] == [saved["cid"]]
            assert (await client.get("/health")).json()["status"] == "ok"

    run(work)


def test_a_memory_is_changed_under_its_owner_only(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            given = {"content": "likes tea", "memory_layer": "profile"}
            stored = await client.post("/memory/user/lin", json=given)
            id = stored.json()["outcomes"][0]["memory_id"]
            for own in ("/memory/user/wang", "/memory/agent/lin"):
                wrong = await client.put(f"{own}/profile/{id}", json={"content": "none"})
                assert_problem(wrong, 404, "no memory")
                assert_problem(await client.delete(f"{own}/profile/{id}"), 404, "no memory")
            (kept,) = (await client.get("/memory/user/lin/profile")).json()["memories"]
            assert kept["content"] == "likes tea"

    run(work)


BAD: list[tuple[str, str, bytes | None, int, str]] = [
    ("GET", "/nowhere", None, 404, "/openapi.json"),
    ("PATCH", "/memory/user/lin", None, 405, "PATCH"),
    ("POST", "/memory/user/lin", b'{"content": "a"}', 422, 'memory_layer="profile"'),
    ("POST", "/memory/user/lin", b'{"content": " "}', 422, "body.content"),
    ("POST", "/memory/user/lin", b'{"content": "a", "layer": "profile"}', 422, "body.layer"),
    ("POST", "/memory/user/lin", b"{", 422, "body"),
    ("POST", "/memory/user/lin", b"\xff", 400, "body"),
    ("POST", "/memory/user/lin", b"[" * 100_000, 400, "body"),
    ("POST", "/memory/other/lin", b"{}", 404, "/openapi.json"),
    ("POST", "/memory/some-id/logs", b"{}", 405, "POST"),
    ("GET", "/memory/user/lin/events?since=0.5", None, 422, "query.since"),
    ("GET", "/memory/user/lin/events?since=2e-311", None, 422, "query.since"),
    ("GET", "/memory/user/lin/events?limit=0", None, 422, "query.limit"),
    ("GET", "/memory/user/lin/events?since=2026-01-01T00:00:00", None, 422, "query.since"),
    (
        "POST",
        "/memory/user/lin",
        b'{"content": "a", "memory_layer": "event", "metadata": {"n": NaN}}',
        422,
        "body.metadata",
    ),
    (
        "POST",
        "/memory/user/lin",
        b'{"content": "a", "memory_layer": "event", "metadata": {"n": [1e999]}}',
        422,
        "body.metadata",
    ),
    (
        "POST",
        "/memory/user/lin",
        b'{"content": "a", "memory_layer": "event", "metadata": {"n": "\\ud800"}}',
        422,
        "surrogate",
    ),
    (
        "POST",
        "/memory/user/lin",
        b'{"content": "a", "memory_layer": "event", "metadata": {"n": 18446744073709551616}}',
        422,
        "64",
    ),
    (
        "POST",
        "/memory/user/lin",
        b'{"content": "a", "memory_layer": "event", "category": "unknown"}',
        422,
        "category",
    ),
]


def test_bad_requests_are_told_what_to_do_and_store_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, service):
            headers = {"content-type": "application/json"}
            for method, path, body, status, words in BAD:
                response = await client.request(method, path, content=body, headers=headers)
                assert_problem(response, status, words)
            assert await service.db["event"].count() == 0
            assert await service.db["log"].count() == 0

    run(work)


def test_what_has_a_meaning_at_a_path_is_named(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            response = await client.patch("/memory/user/lin/profile/x")
            assert_problem(response, 405, "PATCH")
            assert response.headers["allow"] == "DELETE, GET, PUT"

    run(work)


def test_failures_of_the_server_are_problems_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {BusyError("x"): 503, StorageError("x"): 500, KeyError("secret"): 500}

    async def work() -> None:
        async with served(tmp_path) as (client, service):
            for error, status in failures.items():

                def fail(error: Exception = error) -> None:
                    raise error

                monkeypatch.setattr(service.db.blocking, "collections", fail)
                response = await client.get("/health")
                assert_problem(response, status, "")
                assert "secret" not in response.text
                assert ("retry-after" in response.headers) is (status == 503)

    run(work)


@pytest.mark.slow
def test_with_a_token_nobody_is_served_without_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, base_url="http://db.example", host="0.0.0.0", token=TOKEN) as (
            client,
            _,
        ):
            wrong: list[dict[str, str]] = [
                {},
                {"Authorization": f"Bearer {TOKEN}x"},
                {"Authorization": f"Basic {TOKEN}"},
                {"Authorization": TOKEN},
                {"Authorization": "Bearer"},
            ]
            for headers in wrong:
                for path in ("/stats", "/openapi.json", "/memory/user/lin/profile", "/nowhere"):
                    refused = await client.get(path, headers=headers)
                    assert_problem(refused, 401, "Authorization")
                    assert refused.headers["www-authenticate"] == "Bearer"
            right = {"Authorization": f"Bearer {TOKEN}"}
            assert (await client.get("/stats", headers=right)).status_code == 200
            assert (await client.get("/health")).status_code == 200
            document = (await client.get("/openapi.json", headers=right)).json()
            assert document["security"] == [{"token": []}]

    run(work)


def test_without_a_token_only_this_machines_names_are_served(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:80"):
                response = await client.get("/stats", headers={"host": host})
                assert response.status_code == 200, host
            for host in ("evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", ""):
                assert_problem(await client.get("/stats", headers={"host": host}), 421, "token")

    run(work)


def test_a_body_is_limited_whether_or_not_it_says_its_length(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, body_bytes_max=1_000) as (client, service):

            async def parts() -> AsyncGenerator[bytes]:
                for _ in range(20):
                    sent.append(1)
                    yield b"x" * 100

            sent: list[int] = []
            said = await client.post("/chat", content=parts(), headers={"content-length": "2000"})
            assert_problem(said, 413, "1000 bytes")
            assert not sent  # it was refused before a byte was read
            unsaid = await client.post("/chat", content=parts())
            assert_problem(unsaid, 413, "1000 bytes")
            headers = {"content-length": "-1"}
            wrong = await client.post("/chat", content=b"", headers=headers)
            assert_problem(wrong, 400, "Content-Length")
            assert await service.db["chat"].count() == 0

    run(work)


def test_a_client_that_asks_too_often_waits(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, requests_per_s=0.001, burst=3) as (client, _):
            codes = [(await client.get("/health")).status_code for _ in range(3)]
            assert codes == [200] * 3
            refused = await client.get("/health")
            assert_problem(refused, 429, "requests per second")
            assert 900 < int(refused.headers["retry-after"]) <= 1000

    run(work)


def test_guesses_of_a_token_are_counted(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, token=TOKEN, requests_per_s=0.001, burst=3) as (client, _):
            wrong = {"Authorization": "Bearer a-guess-of-24-characters"}
            codes = [(await client.get("/stats", headers=wrong)).status_code for _ in range(4)]
            assert codes == [401, 401, 401, 429]

    run(work)


def test_rates_are_kept_of_each_client_and_of_no_more_than_so_many() -> None:
    clock = FakeClock()
    rates = Rates(2.0, 2, clock)
    assert [rates.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rates.take("b") == 0.0
    clock.advance(0.5)
    assert [rates.take("a") for _ in range(2)] == [0.0, 0.5]
    for n in range(CLIENTS_MAX):
        rates.take(str(n))
    assert rates.take("a") == 0.0  # forgotten, so it begins anew


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "192.168.1.5"},
        {"host": "db.example"},
        {"token": "short"},
        {"token": ""},
        {"token": " a-token-of-24-characters"},
        {"token": "\u00fc" * 20},
        {"port": 65536},
        {"burst": 0},
        {"requests_per_s": 0},
        {"body_bytes_max": -1},
    ],
)
def test_options_that_would_serve_the_wrong_ones_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"token|number"):
        ServerOptions(**wrong)


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(ServerOptions(token=TOKEN))


def _plain(route: str) -> str:
    """A route without the names of its parameters; layers and types count as one."""
    route = re.sub(r"\{[^}]*\}", "{}", route)
    route = re.sub(r"/memory/(user|agent)/", "/memory/{}/", route)
    return re.sub(r"/\{\}/(profile|event)/\{\}", "/{}/{}/{}", route)


def test_the_document_names_every_route_and_its_problems(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            document = (await client.get("/openapi.json")).json()
            routes = {
                f"{method.upper()} {path}"
                for path, methods in document["paths"].items()
                for method in methods
            }
            told = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)", PAGE.read_text()))
            assert {_plain(route) for route in routes} == {_plain(route) for route in told}
            for methods in document["paths"].values():
                for route in methods.values():
                    content = route["responses"]["default"]["content"]
                    assert list(content) == ["application/problem+json"]
                    assert route["description"]

    run(work)


def test_small_answers_wait_for_no_ack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listening: list[socket.socket] = []

    async def listened(_: uvicorn.Server, sockets: list[socket.socket]) -> None:
        listening.extend(sockets)
        assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    monkeypatch.setattr(uvicorn.Server, "serve", listened)
    run(lambda: serve(str(tmp_path / "t.amber"), ServerOptions(port=0), **SMALL))
    assert listening
