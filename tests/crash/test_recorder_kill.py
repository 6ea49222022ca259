"""A process that records durably is killed: each event that it was told is stored is there."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb.events import AgentEvent, AmberEventStore, EventStore, FileEventStore
from support.databases import SMALL, assert_sound

ACKNOWLEDGED = 40

CHILD = """
import asyncio, sys
import amberdb
from amberdb.events import AmberEventStore, FileEventStore, Recorder

async def main(kind, path):
    store = AmberEventStore(amberdb.open(path)) if kind == "database" else FileEventStore(path)
    async with Recorder(store, "assistant", session_id="s", durable=True) as recorder:
        for n in range(1_000_000):
            await recorder.record("custom", {"n": n})
            print(n, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def numbers(store: EventStore) -> list[Any]:
    found: list[AgentEvent] = await store.retrieve(event_type="custom", limit=None)
    return [each.data["n"] for each in reversed(found)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["database", "files"])
def test_what_was_recorded_durably_outlives_a_kill(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "events"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, kind, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(ACKNOWLEDGED):
            child.stdout.readline()
        child.kill()
        told = ACKNOWLEDGED + len(child.stdout.read().splitlines())
    if kind == "files":
        found = asyncio.run(numbers(FileEventStore(path)))
    else:
        with amberdb.open(path, **SMALL) as db:
            found = asyncio.run(numbers(AmberEventStore(db)))
            assert_sound(db)
    assert found == list(range(len(found)))
    assert len(found) >= told
