"""Agent events: recorded, queried, counted, and copied into files."""

import asyncio

import amberdb
from amberdb.events import AmberEventStore, EventType, FileEventStore, Recorder, error_rate, migrate


async def main() -> None:
    with amberdb.open("events.amber") as db:
        store = AmberEventStore(db)
        async with Recorder(store, "assistant") as recorder:

            @recorder.tool
            async def calculator(expression: str) -> int:
                return sum(map(int, expression.split("+")))

            await recorder.user_message("2+2 是多少？")
            await recorder.model_response(f"是 {await calculator('2+2')}", tool_calls_count=1)
            await recorder.record(EventType.CUSTOM, {"action": "user_login", "user_id": "123"})

            for event in await recorder.get_memory(session_id=recorder.session_id):
                print(event.event_type.name, dict(event.data))
            print(len(await recorder.search_memory("calculator")), "about the calculator")
            stats = await recorder.get_memory_stats()
            print(stats["by_type"], f"errors: {error_rate(stats):.0%}")

        files = FileEventStore("agent_memory")
        await files.initialize()
        moved = await migrate(store, files)
        assert moved.verified == moved.found
        print(f"{moved.stored} events in files")


asyncio.run(main())
