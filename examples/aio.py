"""Asyncio: writes that share syncs, a transaction, a follower of the feed, a timeout."""

import asyncio
from datetime import UTC, datetime

from amberdb import Ordered, aio


async def follow(db: aio.Database, seen: asyncio.Event) -> None:
    async for change in db.changes(follow=True):
        if change.op == "put" and change.id == "summary":
            seen.set()


async def main() -> None:
    async with aio.open("aio.amber") as db:
        turns = await db.collection("turn", indexes=[Ordered("user", "at")])
        seen = asyncio.Event()
        follower = asyncio.create_task(follow(db, seen))

        before = (await db.stats()).sync.count
        now = datetime.now(UTC)
        await asyncio.gather(
            *(turns.put({"id": f"{n}", "user": f"u{n % 8}", "at": now}) for n in range(200))
        )
        syncs = (await db.stats()).sync.count - before
        print("200 durable puts,", "shared syncs" if syncs < 200 else "a sync each")

        async with db.transaction() as tx:  # all or nothing, wherever this task is cancelled
            await tx["turn"].put({"id": "summary", "user": "u0", "at": now})
            await tx["turn"].delete("0")
        await seen.wait()
        follower.cancel()

        async with asyncio.timeout(30):
            page = await turns.find({"user": "u0"}, order_by="-at", limit=5)
        print(len(page), "turns of u0, and the follower has seen the summary")


asyncio.run(main())
