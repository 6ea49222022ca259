"""Migrations of events that are killed and run again, and the memory that they take."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import amberdb
from amberdb._fs import FileSystem, staged_for
from amberdb._shared import files
from amberdb.events import Moved, migrate
from support import slices
from support.databases import SMALL, assert_sound
from support.doomed import Deadly
from support.faulty_fs import KINDS as CALLS
from support.migrating import KINDS, Made, made, opened

TESTS = Path(__file__).parent.parent
COUNT, BATCH = 330, 40
EVENTS = 200_000
MEMORY_MAX = 60 << 20


async def migrated(kind: str, path: Path, fs: FileSystem) -> Moved:
    options: dict[str, Any] = {**SMALL, "fs": fs} if kind == "database" else {}
    with mock.patch.object(files, "_OS", fs):
        async with opened(kind, path, **options) as target:
            return await migrate(Made(COUNT), target, batch=BATCH)


def killed(kind: str, path: Path, call: int) -> bool:
    """Migrates in a child that dies in a call of the file system; False when there are not so
    many."""
    if (pid := os.fork()) == 0:
        try:
            fs = Deadly()
            fs.arm(CALLS, call, torn=True)
            asyncio.run(migrated(kind, path, fs))
            os._exit(0)
        except BaseException:  # nothing of the parent's may run in the child
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code} by itself"
    return code != 0


async def stored_times(kind: str, path: Path) -> int:
    """How many times an event was stored, of all events."""
    if kind == "database":
        with amberdb.open(path, **SMALL) as db:
            assert_sound(db)
            last = db["agent_event"].max("position")
            assert isinstance(last, int)
            return last
    texts = [
        each.read_text("utf-8") for each in path.glob("*.json*") if staged_for(each.name) is None
    ]
    if kind == "arrays":
        return sum(len(json.loads(text)) for text in texts if text)
    return sum(line.endswith("}") for text in texts for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("kind", KINDS)
def test_a_migration_that_is_killed_again_and_again_goes_on(tmp_path: Path, kind: str) -> None:
    counting = Deadly()
    counting.arm(CALLS)
    moved = asyncio.run(migrated(kind, tmp_path / "whole", counting))
    assert (moved.stored, moved.verified) == (COUNT, COUNT)
    for seed in range(slices.size(60, 2)):
        print(f"{kind}: seed {seed}")
        path, kills = tmp_path / f"seed {seed}", 0
        rng = random.Random(f"{kind}:{seed}")
        while kills < 6 and killed(kind, path, rng.randrange(1, counting.counted)):
            kills += 1
        times = asyncio.run(stored_times(kind, path)) if kills == 6 else None
        moved = asyncio.run(migrated(kind, path, Deadly()))
        assert (moved.found, moved.verified, moved.failed) == (COUNT, COUNT, {})
        assert moved.stored + moved.present == COUNT
        now = asyncio.run(stored_times(kind, path))
        assert now <= COUNT + (kills + 1) * BATCH
        if times is not None:
            assert now <= times + moved.stored + BATCH
        asyncio.run(compare(kind, path))


async def compare(kind: str, path: Path) -> None:
    async with opened(kind, path, **(SMALL if kind == "database" else {})) as target:
        found = [event async for page in target.iterate() for event in page]
        assert [each.event_id for each in found] == [made(n).event_id for n in range(COUNT)]
        assert found == [made(n) for n in range(COUNT)]


def measured(kind: str, count: int, way: str, directory: Path) -> int:
    directory.mkdir()
    command = [sys.executable, "-m", "support.migrating", kind, str(count), way, str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.sliced
def test_a_migration_holds_some_batches_however_many_events_there_are(tmp_path: Path) -> None:
    few = measured("none", 1_000, "read", tmp_path / "few")
    many = measured("none", slices.size(EVENTS, 5_000), "read", tmp_path / "many")
    print(f"{few >> 10} KiB, {many >> 10} KiB")
    assert many < few + (300 << 10)


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="it needs /proc")
@pytest.mark.parametrize("kind", ["database", "lines by session"])
def test_a_migration_takes_little_memory_beyond_that_of_the_target(
    tmp_path: Path, kind: str
) -> None:
    alone = measured(kind, EVENTS, "store", tmp_path / "alone")
    whole = measured(kind, EVENTS, "migrate", tmp_path / "whole")
    print(f"{EVENTS} events: {alone >> 20} MiB alone, {whole >> 20} MiB migrated")
    assert whole < alone + MEMORY_MAX
