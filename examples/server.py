"""Layered memory over HTTP: a server in this process, and a client that uses the routes only."""

import asyncio

import httpx

from amberdb.server import ServerOptions, serve


async def main() -> None:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    options = ServerOptions(port=0, token="an-example-of-a-token")
    server = asyncio.create_task(serve("server.amber", options, ready=url.set_result))
    headers = {"Authorization": "Bearer an-example-of-a-token"}
    async with httpx.AsyncClient(base_url=await url, headers=headers) as client:
        body = {"content": "用户是一名软件工程师，毕业于北京大学", "memory_layer": "profile"}
        stored = (await client.post("/memory/user/user123", json=body)).json()["outcomes"][0]
        changed = {"content": "用户是一名高级软件工程师", "reason": "补充了具体的职级信息"}
        path = f"/memory/user/user123/profile/{stored['memory_id']}"
        (await client.put(path, json=changed)).raise_for_status()
        for memory in (await client.get("/memory/user/user123/profile")).json()["memories"]:
            print(memory["content"])
        logs = await client.get(f"/memory/{stored['memory_id']}/logs?memory_layer=profile")
        print([entry["reason"] for entry in logs.json()["logs"]])
        print((await client.delete("/memory/user/user123")).json()["profile"], "forgotten")
    server.cancel()  # as SIGTERM does for `amberdb serve`: the database is closed
    await asyncio.gather(server, return_exceptions=True)


asyncio.run(main())
