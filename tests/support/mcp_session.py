"""Sessions of the SDK's own client with the memory server, in a process of their own: the SDK would
stay in the memory of a worker.

    python -m support.mcp_session legacy t.amber      the protocol until 2025-11-25
    python -m support.mcp_session auto t.amber        since 2026-07-28
"""

import asyncio
import sys
import warnings
from typing import Any

import pytest
from mcp import Client, MCPError

from amberdb.mcp import McpOptions
from amberdb.mcp.server import memory_server

LIN = {"name": "lin", "entityType": "person", "observations": ["likes tea", "住在杭州"]}
URI = "memory://entity/lin"


async def session(mode: str, path: str) -> None:
    """All that a client can ask."""
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def heard(message: Any) -> None:
        await seen.put(message)

    async with (
        memory_server(path, McpOptions()) as (server, _),
        Client(server, mode=mode, message_handler=heard) as client,
    ):
        await tools(client)
        await resources(client)
        await (subscription(client, seen) if mode == "legacy" else listening(client))
        await prompts(client)
    async with (
        memory_server(path, McpOptions(read_only=True, tools="core")) as (server, _),
        Client(server, mode=mode) as client,
    ):
        names = [each.name for each in (await client.list_tools()).tools]
        assert names == ["read_graph", "search_nodes", "open_nodes"], names
        assert (await client.call_tool("open_nodes", {"names": ["lin"]})).structured_content


async def tools(client: Client) -> None:
    """Every tool is listed; answers are checked by the client against their schemas."""
    listed = {each.name: each for each in (await client.list_tools()).tools}
    assert len(listed) == 16
    for tool in listed.values():
        assert all((tool.title, tool.description, tool.annotations)), tool.name
        assert tool.input_schema["type"] == "object"
        assert tool.output_schema is not None
    stored = await client.call_tool("create_entities", {"entities": [LIN]})
    assert stored.structured_content == {"entities": [LIN]}
    told = await client.call_tool("remember", {"text": "用户喜欢喝茶", "entity": "lin"})
    id = told.structured_content["id"]
    calls: dict[str, dict[str, Any]] = {
        "create_relations": {"relations": [{"from": "lin", "to": "lin", "relationType": "x"}]},
        "add_observations": {"observations": [{"entityName": "lin", "contents": ["a"]}]},
        "delete_relations": {"relations": [{"from": "lin", "to": "lin", "relationType": "x"}]},
        "delete_observations": {"deletions": [{"entityName": "lin", "observations": ["a"]}]},
        "delete_entities": {"entityNames": ["nobody"]},
        "read_graph": {},
        "search_nodes": {"query": "杭州"},
        "open_nodes": {"names": ["lin"]},
        "recall": {"query": "喝茶"},
        "timeline": {"entity": "lin"},
        "update": {"id": id, "content": "用户喜欢绿茶", "reason": "he said so"},
        "why": {"id": id},
        "stats": {},
        "forget": {"ids": [id], "reason": "asked"},
    }
    for name, arguments in calls.items():
        answer = await client.call_tool(name, arguments)
        assert not answer.is_error, (name, answer)
        assert answer.structured_content, name
    wrong = await client.call_tool("recall", {"query": 5})
    assert wrong.is_error
    assert "Input validation error" in str(wrong.content)


async def resources(client: Client) -> None:
    """Resources are listed and read; one that is not there is an error of the request."""
    uris = [each.uri for each in (await client.list_resources()).resources]
    assert uris == ["memory://knowledge-graph", "memory://recent", "memory://log"], uris
    for uri in (*uris, URI):
        (content,) = (await client.read_resource(uri)).contents
        assert content.mime_type == "application/json"
        assert uri != URI or "住在杭州" in getattr(content, "text", "")
    (template,) = (await client.list_resource_templates()).resource_templates
    assert template.uri_template == "memory://entity/{name}"
    with pytest.raises(MCPError, match="nobody not found"):
        await client.read_resource("memory://entity/nobody")


async def subscription(client: Client, seen: "asyncio.Queue[Any]") -> None:
    """Those who have subscribed are told, also after an erasure; others are not."""
    subscribe = client.subscribe_resource  # pyright: ignore[reportDeprecated]
    unsubscribe = client.unsubscribe_resource  # pyright: ignore[reportDeprecated]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK says that the way is an old one
        await subscribe("memory://log")
        await subscribe(URI)
        await unsubscribe(URI)
        await client.call_tool("add_observations", added("x"))
        told = await client.call_tool("remember", {"text": "to be forgotten"})
        await next_uri(seen, "memory://log")
        id = told.structured_content["id"]
        await client.call_tool("forget", {"ids": [id], "reason": "asked"})
        await next_uri(seen, "memory://log")
        await subscribe(URI)
        await client.call_tool("add_observations", added("y"))
        await next_uri(seen, URI, but="memory://log")


async def next_uri(seen: "asyncio.Queue[Any]", uri: str, *, but: str | None = None) -> None:
    """Waits for the notification of a resource; others may not come, except of `but`."""
    while True:
        message = await asyncio.wait_for(seen.get(), 60)
        if message.params.uri != but:
            assert message.params.uri == uri, message
            return


async def listening(client: Client) -> None:
    """A stream of events has those that were asked for."""
    async with client.listen(resource_subscriptions=[URI]) as events:
        await client.call_tool("remember", {"text": "something else"})
        await client.call_tool("add_observations", added("z"))
        async for event in events:
            assert getattr(event, "uri", None) == URI, event
            return


def added(text: str) -> dict[str, Any]:
    return {"observations": [{"entityName": "lin", "contents": [text]}]}


async def prompts(client: Client) -> None:
    """Both prompts have their argument."""
    names = [each.name for each in (await client.list_prompts()).prompts]
    assert names == ["recall-first", "summarise-session"], names
    for name, argument in (("recall-first", "topic"), ("summarise-session", "entity")):
        prompt = await client.get_prompt(name, {argument: "茶"})
        assert "茶" in str(prompt.messages)


def main() -> None:
    mode, path = sys.argv[1:]
    asyncio.run(session(mode, path))


if __name__ == "__main__":
    main()
