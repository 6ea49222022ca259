"""The routes of each memory system, the options that they take, and who a client is."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

import amberdb
from amberdb import Database, Unique
from amberdb.chat import JsonlSink
from amberdb.memory import Retention
from amberdb.server import ServerOptions
from amberdb.server.clients import Clients
from support.asking import assert_problem, run, served

TOKEN = "a-token-of-24-characters"


async def done(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


# -- somebody --------------------------------------------------------------------------------


def test_what_all_systems_hold_of_somebody_is_shown_and_forgotten(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            for who in ("lin", "wu"):
                given = {"content": "likes tea", "memory_layer": "profile"}
                await done(await client.post(f"/memory/user/{who}", json=given))
                await done(await client.put(f"/profiles/user/{who}", json={"user_name": who}))
            held = (await done(await client.get("/privacy/lin")))["collections"]
            assert set(held) == {"profile", "log", "user_memories"}
            assert held["profile"][0]["content"] == "likes tea"
            assert_problem(await client.delete("/privacy/lin"), 422, "reason")
            receipt = await done(await client.delete("/privacy/lin?reason=asked"))
            assert receipt["collections"]["user_memories"] == 1
            assert receipt["completed"]
            assert (await done(await client.get("/privacy/lin")))["collections"] == {}
            others = (await done(await client.get("/privacy/wu")))["collections"]
            assert others.keys() == held.keys()
            assert_problem(await client.delete("/privacy/lin?reason=again"), 404, "nothing is held")

    run(work)


# -- layered memory --------------------------------------------------------------------------


def test_a_memory_its_history_and_undo(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            own = "/memory/user/lin"
            given = {"content": "likes tea", "memory_layer": "profile"}
            (told,) = (await done(await client.post(own, json=given)))["outcomes"]
            one = f"{own}/profile/{told['memory_id']}"
            await client.put(one, json={"content": "likes coffee", "reason": "told so"})
            found = await done(await client.get(one))
            assert (found["content"], found["entity_id"]) == ("likes coffee", "lin")
            assert "facts" not in found
            entries = (await done(await client.get(f"{one}/history")))["logs"]
            assert [each["action"] for each in entries] == ["insert", "update"]
            assert entries[1]["before"]["content"] == "likes tea"
            assert entries[1]["after"]["content"] == "likes coffee"
            (newest, *_) = (await done(await client.get(f"{own}/logs?limit=1")))["logs"]
            assert newest["id"] == entries[1]["id"]
            log = f"undo/{newest['id']}"
            for other in ("/memory/user/wang", "/memory/agent/lin"):
                path = f"{other}/profile/{told['memory_id']}"
                assert_problem(await client.get(path), 404, "no memory")
                assert_problem(await client.post(f"{path}/{log}"), 404, "no log entry")
                assert (await done(await client.get(f"{path}/history")))["logs"] == []
                assert (await done(await client.get(f"{other}/logs")))["logs"] == []
            undone = await done(await client.post(f"{one}/{log}", json={"reason": "a mistake"}))
            assert (undone["action"], undone["reason"]) == ("update", "a mistake")
            assert (await done(await client.get(one)))["content"] == "likes tea"
            assert_problem(await client.post(f"{one}/{log}"), 409, "changed after")
            assert_problem(await client.post(f"{one}/undo/none"), 404, "no log entry")
            logs = (await done(await client.get(f"/memory/{told['memory_id']}/logs")))["logs"]
            assert [each["before"] is None for each in logs] == [False, False, True]
            await client.delete(one)
            assert_problem(await client.get(one), 404, "no memory")

    run(work)


def test_a_memory_has_an_id_and_a_time_of_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            own = "/memory/user/lin"
            body = {
                "content": "moved here", "memory_layer": "event", "memory_id": "old-7",
                "created_at": "2026-01-02T03:04:05Z", "expiry_date": "2999-01-01T00:00:00Z",
            }  # fmt: skip
            await done(await client.post(own, json=body))
            found = await done(await client.get(f"{own}/event/old-7"))
            assert found["created_at"] == "2026-01-02T03:04:05Z"
            assert_problem(await client.post(own, json=body), 409, "old-7")
            for time, count in (("2999-01-01T00:00:00Z", 0), ("2999-01-02T00:00:00Z", 1)):
                page = await done(await client.get(f"{own}/events?expiring_before={time}"))
                assert len(page["memories"]) == count

    run(work)


def test_nobody_is_forgotten_without_a_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacted: list[str] = []
    erase, compact = Database.erase, Database.compact

    def erased(self: Database, *args: Any, **kwargs: Any) -> Any:
        compacted.append("erase")
        return erase(self, *args, **kwargs)

    def compacts(self: Database, *args: Any, **kwargs: Any) -> Any:
        compacted.append("compact")
        return compact(self, *args, **kwargs)

    monkeypatch.setattr(Database, "erase", erased)
    monkeypatch.setattr(Database, "compact", compacts)

    async def work() -> None:
        async with served(tmp_path) as (client, service):
            receipt = await done(await client.delete("/memory/user/nobody"))
            assert (receipt["profile"], receipt["is_compacted"], compacted) == (0, False, [])
            await service.memory.remember("lin", "x", memory_layer="profile")
            (memory,) = await service.memory.profile("lin")
            await service.memory.delete("profile", memory["id"])  # its log entry has the text
            receipt = await done(await client.delete("/memory/user/lin"))
            assert (receipt["is_compacted"], len(compacted)) == (True, 1)
            await done(await client.delete("/memory/user/lin"))
            assert len(compacted) == 1

    run(work)


# -- the other systems -----------------------------------------------------------------------


def test_profiles(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            one = "/profiles/user/北京 用户"
            body = {"user_name": "林", "basic_info": {"city": "杭州"}}
            assert (await done(await client.put(one, json=body)))["user_name"] == "林"
            await client.put(one, json={"basic_info": {"age": 31}})
            patch = {"$push": {"interests": "green tea"}, "$inc": {"basic_info.age": 1}}
            changed = await done(await client.patch(one, json=patch))
            assert changed["basic_info"] == {"city": "杭州", "age": 32}
            assert changed["interests"] == ["green tea"]
            assert await done(await client.post(f"{one}/conversations?by=2")) == {"count": 2}
            assert (await done(await client.get(one)))["conversation_count"] == 2
            await client.put("/profiles/user/u2", json={})
            page = await done(await client.get("/profiles?limit=1"))
            assert [each["id"] for each in page["documents"]] == ["u2"]
            rest = await done(await client.get("/profiles", params={"after": page["cursor"]}))
            assert len(rest["documents"]) == 1
            hits = await done(await client.get("/profiles/search?text=tea"))
            assert [hit["id"] for hit in hits["hits"]] == ["北京 用户"]
            for wrong in ({"conversation_count": "3"}, {"interests": 3}, {"x": 1 << 70}):
                assert_problem(await client.put(one, json=wrong), 422, "")
            headers = {"content-type": "application/json"}
            sent = await client.put(one, content=b'{"x": [1e999]}', headers=headers)
            assert_problem(sent, 422, "body")
            assert_problem(await client.patch(one, json={"$sum": {"x": 1}}), 422, "$sum")
            assert await done(await client.delete(one)) == {"count": 1}
            for asked in (client.get(one), client.delete(one)):
                assert_problem(await asked, 404, "no profile")

    run(work)


def test_agent_context(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            user = (await done(await client.post("/context/users", json={"username": "lin"})))["id"]
            body = {"user_id": user, "role_name": "helper", "token_budget": 100}
            session = (await done(await client.post("/context/sessions", json=body)))["id"]
            one = f"/context/sessions/{session}"
            assert (await done(await client.get(one)))["role_name"] == "helper"
            listed = await done(await client.get(f"/context/users/{user}/sessions"))
            assert [each["id"] for each in listed["documents"]] == [session]
            for part in ("system", "working"):
                await done(await client.put(f"{one}/{part}", json={"content": part}))
            turns = [{"role": "user", "content": f"turn {n} about tea"} for n in range(40)]
            assert len(await done(await client.post(f"{one}/messages", json=turns))) > 1
            rendered = (await done(await client.get(f"{one}/render")))["documents"]
            assert rendered[-1]["content"] == "turn 39 about tea"
            queue = (await done(await client.get(f"{one}/messages?limit=1")))["documents"]
            assert queue[0]["role"] == "user"
            hits = (await done(await client.get(f"{one}/recall?text=tea")))["hits"]
            assert len(hits) == 10
            path = f"/context/search?text=turn&user_id={user}&limit=40"
            assert len((await done(await client.get(path)))["hits"]) == 40
            assert_problem(await client.get("/context/search?text=x"), 422, "session_id")
            schemas = (await done(await client.get("/context/tools")))["documents"]
            assert "archival_memory_insert" in {each["function"]["name"] for each in schemas}
            arguments = json.dumps({"content": "likes green tea"})
            function = {"name": "archival_memory_insert", "arguments": arguments}
            call = {"id": "c1", "type": "function", "function": function}
            result = await done(await client.post(f"{one}/tools", json=call))
            assert (result["role"], result["tool_call_id"]) == ("tool", "c1")
            hits = (await done(await client.get(f"{one}/archival/search?text=tea")))["hits"]
            await done(await client.delete(f"/context/archival/{hits[0]['id']}"))
            users = (await done(await client.get("/context/users")))["documents"]
            assert [each["id"] for each in users] == [user]
            note = {"content": "an umbrella in the car", "metadata": {"a": 1}}
            memory = (await done(await client.post(f"{one}/archival", json=note)))["id"]
            listed = (await done(await client.get(f"{one}/archival")))["documents"]
            assert [each["content"] for each in listed] == [note["content"]]
            hits = (await done(await client.get(f"{one}/archival/search?text=umbrella")))["hits"]
            assert [hit["id"] for hit in hits] == [memory]
            await done(await client.delete(f"/context/archival/{memory}"))
            assert (await done(await client.delete(one)))["sessions"] == 1
            await done(await client.delete(f"/context/users/{user}"))
            assert_problem(await client.get(one), 404, session)

    run(work)


def test_events_of_agents(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            events = [
                {
                    "agent_name": "helper",
                    "session_id": f"s{n % 2}",
                    "event_type": "tool_call_start",
                    "timestamp": f"2026-01-0{n + 1}T00:00:00Z",
                    "data": {"tool_name": "calculator" if n else "umbrella"},
                }
                for n in range(4)
            ]
            assert await done(await client.post("/events", json=events)) == {"count": 4}
            found = await done(await client.get("/events?session_id=s1&limit=1"))
            assert [each["timestamp"] for each in found["documents"]] == ["2026-01-04T00:00:00Z"]
            found = await done(await client.get("/events?end_time=2026-01-02T00:00:00Z"))
            assert len(found["documents"]) == 1
            found = await done(await client.get("/events/search?text=umbrella"))
            assert len(found["documents"]) == 1
            stats = await done(await client.get("/events/stats?session_id=s0"))
            assert stats["total_events"] == 2
            assert_problem(await client.delete("/events"), 422, "session_id")
            assert await done(await client.delete("/events?session_id=s0")) == {"count": 2}
            wrong = [{**events[0], "event_type": "nothing"}]
            assert_problem(await client.post("/events", json=wrong), 422, "event_type")

    run(work)


def test_the_knowledge_graph(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            for name in ("lin", "acme"):
                body = {"name": name, "entity_type": "thing", "observations": [f"{name} is here"]}
                await done(await client.post("/graph/entities", json=body))
            body = {"source": "lin", "relation_type": "works_at", "target": "acme"}
            relation = (await done(await client.post("/graph/relations", json=body)))["id"]
            facts = (await done(await client.get("/graph/entities/lin/facts")))["documents"]
            assert [each["target"] for each in facts] == ["acme"]
            listed = (await done(await client.get("/graph/relations?target=acme")))["documents"]
            assert [each["id"] for each in listed] == [relation]
            hits = (await done(await client.get("/graph/search?text=lin")))["hits"]
            assert [hit["id"] for hit in hits] == ["lin"]
            listed = await done(await client.get("/graph/entities?entity_type=thing"))
            assert len(listed["documents"]) == 2
            await done(await client.delete(f"/graph/relations/{relation}"))
            assert await done(await client.delete("/graph/entities/lin")) == {"count": 0}
            assert_problem(await client.get("/graph/entities/lin"), 404, "lin")
            assert (await done(await client.get("/graph/entities/acme")))["name"] == "acme"

    run(work)


def test_a_collection_of_the_program_keeps_its_system_away_and_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        with amberdb.open(tmp_path / "t.amber") as db:
            db.collection("user_memories", indexes=[Unique("email")]).put({"email": "a"})
        async with served(tmp_path) as (client, service):
            assert_problem(await client.get("/profiles"), 409, "name=")
            await done(await client.get("/graph/entities"))
            await done(await client.get("/memory/user/lin/profile"))
            assert await service.db["user_memories"].count() == 1

    run(work)


def test_with_a_name_the_systems_have_collections_of_their_own(tmp_path: Path) -> None:
    async def work() -> None:
        with amberdb.open(tmp_path / "t.amber") as db:
            for taken in ("user_memories", "event", "chat", "users"):
                db.collection(taken, indexes=[Unique("email")])
        async with served(tmp_path, systems={"name": "shop"}) as (client, service):
            for path in ("/profiles", "/context/users", "/events", "/graph/entities"):
                await done(await client.get(path))
            await client.post("/memory/user/lin", json={"content": "x", "memory_layer": "event"})
            await client.post("/chat", json=TURN)
            await client.post("/memory/flush")
            counts = {
                name: await service.db[name].count()
                for name in await service.db.collections()
                if not name.startswith("shop_")
            }
            assert counts == dict.fromkeys(("user_memories", "event", "chat", "users"), 0)
            assert await service.db["shop_chat_archive"].count() == 1

    run(work)


def test_conversations(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            await done(await client.post("/chat", json=TURN))
            await done(await client.post("/memory/flush"))
            await done(await client.post("/chat", json={**TURN, "user_message": "of umbrellas"}))
            found = await done(await client.get("/chat?text=umbrellas&user_id=lin"))
            assert [each["user_message"] for each in found["turns"]] == ["of umbrellas"]
            (one,) = (await done(await client.get("/chat/user/lin/conversations")))["documents"]
            assert (one["conversation_id"], one["turns"]) == ("c", 2)
            gone = await done(await client.delete("/chat/c"))
            assert (gone["hot_deleted"], gone["sink_deleted"]) == (2, 1)
            assert (await done(await client.get("/chat/c")))["turns"] == []
            assert (await done(await client.delete("/chat/user/lin")))["hot_deleted"] == 0
            assert (await done(await client.get("/memory/dead_letters")))["documents"] == []
            assert (await done(await client.post("/memory/dead_letters")))["total_pending"] == 0

    run(work)


TURN = {"user_message": "a", "assistant_message": "b", "conversation_id": "c", "user_id": "lin"}
STRANGE: Sequence[bytes] = (
    b"", b"null", b"{", b"\xff", b"[[]]", b"[{}]", b'{"x":' + b'{"a":' * 70 + b"1" + b"}" * 71,
    b'{"x":99999999999999999999}', b'{"x":"\\ud83d"}', b'{"$where":1}',
    b'[{"role":{},"content":[]}]',
)  # fmt: skip


def test_strange_bodies_and_ids_are_refused_by_every_route(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            document = (await client.get("/openapi.json")).json()
            headers = {"content-type": "application/json"}
            for path, methods in document["paths"].items():
                filled = path.replace("{memory_type}", "user").replace("{memory_layer}", "event")
                for name in ("user_id", "name", "relation_id", "session_id", "memory_id"):
                    filled = filled.replace(f"{{{name}}}", "x")
                filled = filled.replace("{entity_id}", "x").replace("{conversation_id}", "x")
                filled = filled.replace("{log_id}", "x")
                assert "{" not in filled
                for method in methods:
                    if method in ("post", "put", "patch"):
                        for body in STRANGE:
                            sent = await client.request(
                                method, filled, content=body, headers=headers
                            )
                            assert sent.status_code < 500, (method, path, body[:40], sent.text)
                    for query in ("", "?limit=x", "?text=%ff", "?query=%22hi"):
                        sent = await client.request(method, filled + query)
                        assert sent.status_code < 500, (method, filled, query, sent.text)

    run(work)


def test_any_text_can_be_searched_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as (client, _):
            for path in ("/memory/search", "/profiles/search", "/graph/search", "/events/search"):
                for text in ("?", '"hi', "-5", "\N{BIRTHDAY CAKE}", "C++ (", "AND OR"):
                    await done(await client.get(path, params={"text": text}))

    run(work)


# -- options ---------------------------------------------------------------------------------


def test_the_systems_take_their_options(tmp_path: Path) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float("tea" in text), float("car" in text)] for text in texts]

    def sink(_: Database) -> JsonlSink:
        return JsonlSink(tmp_path / "turns.jsonl")

    systems: dict[str, Any] = {
        "embed": embed,
        "dim": 2,
        "retention": Retention(event=timedelta(days=1)),
        "categories": {"profile": ["hobby"]},
        "sink": sink,
    }

    async def work() -> None:
        async with served(tmp_path, systems=systems) as (client, _):
            own = "/memory/user/lin"
            for content, category in (("green tea", "hobby"), ("a red car", None)):
                body = {"content": content, "memory_layer": "profile", "category": category}
                (told,) = (await done(await client.post(own, json=body)))["outcomes"]
            hits = await done(await client.get("/memory/search?text=teapot&limit=1"))
            assert [hit["document"]["content"] for hit in hits["hits"]] == ["green tea"]
            assert "embedding" not in hits["hits"][0]["document"]
            found = await done(await client.get(f"{own}/profile/{told['memory_id']}"))
            assert "embedding" not in found
            user = (await done(await client.post("/context/users", json={"username": "a"})))["id"]
            body = {"user_id": user, "role_name": "helper", "session_id": "s"}
            await client.post("/context/sessions", json=body)
            await client.post("/context/sessions/s/archival", json={"content": "green tea"})
            hits = await done(await client.get("/context/sessions/s/archival/search?text=teapot"))
            assert len(hits["hits"]) == 1
            await client.post(own, json={"content": "x", "memory_layer": "event"})
            (event,) = (await done(await client.get(f"{own}/events")))["memories"]
            kept = event["expiry_date"][:10], event["created_at"][:10]
            assert kept[0] > kept[1]
            await client.post("/chat", json=TURN)
            await client.post("/memory/flush")
            (line,) = (tmp_path / "turns.jsonl").read_text().splitlines()
            assert json.loads(line)["user_message"] == "a"

    run(work)


# -- who a client is -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ([], "127.0.0.1", ["9.9.9.9"], "127.0.0.1"),
        (["10.0.0.1"], "127.0.0.1", ["9.9.9.9"], "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        (["127.0.0.1"], "127.0.0.1", ["1.1.1.1, 9.9.9.9"], "9.9.9.9"),
        (["127.0.0.1"], "127.0.0.1", ["1.1.1.1", "9.9.9.9"], "9.9.9.9"),
        (["127.0.0.1", "10.0.0.0/8"], "127.0.0.1", ["1.1.1.1, 9.9.9.9, 10.2.3.4"], "9.9.9.9"),
        (["127.0.0.1"], "::ffff:127.0.0.1", ["9.9.9.9:443"], "9.9.9.9"),
        (["::1"], "::1", ["[2001:db8::1]:80"], "2001:db8::1"),
        (["127.0.0.1"], "127.0.0.1", [], "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", ["unknown"], "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", ["1.1.1.1, nonsense"], "127.0.0.1"),
        (["127.0.0.1"], "127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_a_client_is_its_connection_or_what_a_trusted_proxy_says(
    trusted: list[str], peer: str, forwarded: list[str], client: str
) -> None:
    raw = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    scope: dict[str, Any] = {"client": (peer, 1)}
    assert Clients(trusted).address(scope, Headers(raw=raw)) == client


@pytest.mark.parametrize(("proxies", "last"), [([], 429), (["127.0.0.1"], 401)])
def test_a_header_of_the_client_does_not_evade_the_count_of_guesses(
    tmp_path: Path, proxies: list[str], last: int
) -> None:
    async def work() -> None:
        options: dict[str, Any] = {"requests_per_s": 0.001, "burst": 3, "trusted_proxies": proxies}
        async with served(tmp_path, token=TOKEN, **options) as (client, _):
            codes: list[int] = []
            for n in range(4):
                headers = {"Authorization": "Bearer x", "X-Forwarded-For": f"9.9.9.{n}"}
                codes.append((await client.get("/stats", headers=headers)).status_code)
            assert codes == [401, 401, 401, last]

    run(work)


def test_a_proxy_is_an_address_or_a_network() -> None:
    ServerOptions(trusted_proxies=["10.0.0.0/8", "::1"])
    for wrong in ("proxy.example", "10.0.0.1/8", ""):
        with pytest.raises(ValueError, match="trusted proxy"):
            ServerOptions(trusted_proxies=[wrong])
