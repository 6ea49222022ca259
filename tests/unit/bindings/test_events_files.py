"""Events in files: what other programs and crashes leave there, cancelled tasks, several loops."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from amberdb._shared.files import append_lines
from amberdb.events import AgentEvent, FileEventStore, Format, InMemoryEventStore, folder, migrate
from amberdb.events.contract import START, event


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


async def ids(store: FileEventStore, **how: Any) -> list[str]:
    return [each.event_id for each in await store.retrieve(limit=None, **how)]


FOREIGN = [b'{"event_id": "torn", "age', b"# a comment", b'{"level": "info"}', b"\xff\xfe"]


@pytest.mark.parametrize("file_per_session", [True, False])
def test_no_row_that_cannot_be_read_is_deleted(tmp_path: Path, file_per_session: bool) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path, file_per_session=file_per_session)
        await store.store_many([event(n, session_id="s") for n in range(4)])
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes() + b"\n".join(FOREIGN))
        await store.store(event(9, session_id="s"))
        assert await ids(store) == ["evt_9", "evt_3", "evt_2", "evt_1", "evt_0"]
        assert await store.clear(end_time=START + timedelta(minutes=2)) == 2
        assert path.read_bytes().splitlines()[2:6] == FOREIGN
        assert await store.clear() == 3
        assert path.read_bytes().splitlines() == FOREIGN
        await store.store(event(10, session_id="s"))
        assert await ids(store) == ["evt_10"]

    run(work)


def test_an_array_keeps_what_is_no_event_and_a_damaged_one_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "events.json"

    async def work() -> None:
        store = FileEventStore(tmp_path, format="json", file_per_session=False)
        await store.store_many([event(0), event(1)])
        rows = json.loads(path.read_text("utf-8"))
        note = {"note": "written by hand", "n": 1.50}
        path.write_text("\ufeff" + json.dumps([note, *rows], indent=4), "utf-8")
        assert await ids(store) == ["evt_1", "evt_0"]
        await store.store(event(2))
        assert await store.clear(end_time=START + timedelta(minutes=2)) == 2
        assert json.loads(path.read_text("utf-8"))[0] == note
        damaged = path.read_text("utf-8")[:-9]
        path.write_text(damaged, "utf-8")
        assert await ids(store) == []
        assert await store.clear() == 0
        await store.store(event(3))
        assert await ids(store) == ["evt_3"]
        (aside,) = tmp_path.glob("*.damaged")
        assert aside.read_text("utf-8") == damaged

    run(work)


def test_rows_of_an_earlier_version_and_of_a_windows_editor_are_read(tmp_path: Path) -> None:
    async def work() -> None:
        old = [event(n, session_id="s") for n in (5, 2, 2)]  # it had no positions; one came twice
        strange: list[dict[str, Any]] = [{}, {"position": "first"}, {"position": 10**30}]
        rows = [
            json.dumps({**e.to_map(), "timestamp": e.timestamp.isoformat(), **more})
            for e, more in zip(old, strange, strict=True)
        ]
        text = "\r\n".join(rows)
        (tmp_path / "session_s.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
        store = FileEventStore(tmp_path)
        assert await ids(store) == ["evt_2", "evt_5"]
        await store.store(event(0, session_id="s"))
        assert await ids(store, oldest_first=True) == ["evt_5", "evt_2", "evt_0"]
        assert (await store.get_stats())["total_events"] == 3

    run(work)


def test_a_file_that_is_gone_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path)
        await store.store_many([event(n, session_id=f"s{n}") for n in range(3)])
        listed = folder.EventFolder._paths  # pyright: ignore[reportPrivateUsage]

        def gone(self: folder.EventFolder) -> list[Path]:
            paths = listed(self)
            paths[-1].unlink(missing_ok=True)
            return paths

        monkeypatch.setattr(folder.EventFolder, "_paths", gone)
        assert await ids(store) == ["evt_1", "evt_0"]
        assert await store.clear() == 1
        monkeypatch.undo()
        assert await ids(store) == []

    run(work)


def test_a_write_that_is_cancelled_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(path: Path, lines: bytes) -> None:
        inside.set()
        assert go_on.wait(60)
        append_lines(path, lines)

    monkeypatch.setattr(folder, "append_lines", slow)

    async def work() -> None:
        store = FileEventStore(tmp_path, file_per_session=False)
        cancelled = asyncio.create_task(store.store(event(0)))
        await asyncio.to_thread(inside.wait)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        later = asyncio.create_task(store.store_many([event(1), event(2)]))
        await asyncio.sleep(0)
        go_on.set()
        assert await later == 2
        assert await ids(store) == ["evt_2", "evt_1", "evt_0"]

    run(work)


@pytest.mark.parametrize("format", ["jsonl", "json"])
def test_stores_of_several_loops_share_a_directory(tmp_path: Path, format: Format) -> None:
    one = FileEventStore(tmp_path, format=format, file_per_session=False, rotate_size=5000)

    def thread(first: int) -> None:
        other = FileEventStore(tmp_path, format=format, file_per_session=False, rotate_size=5000)

        async def work() -> None:
            for n in range(first, first + 10):
                await (one if n % 2 else other).store(event(n))

        run(work)

    threads = [threading.Thread(target=thread, args=(n * 10,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = asyncio.run(ids(one))
    assert sorted(found) == sorted(f"evt_{n}" for n in range(40))


def test_reading_the_newest_reads_no_more_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    made = AgentEvent.from_map

    def counted(stored: Any) -> AgentEvent:
        read.append(stored)
        return made(stored)

    async def work() -> None:
        store = FileEventStore(tmp_path, rotate_size=20_000)
        await store.store_many([event(n, session_id=f"s{n % 7}") for n in range(700)])
        monkeypatch.setattr(AgentEvent, "from_map", counted)
        assert await ids(store, session_id="s3")
        read.clear()
        await store.retrieve(limit=5)
        assert len(read) == 5
        await store.retrieve(session_id="s2", limit=5, oldest_first=True)
        assert len(read) == 10
        late = START + timedelta(minutes=690)
        assert len(await store.retrieve(start_time=late, limit=None)) == 10
        assert len(read) == 20
        read.clear()
        await migrate(store, InMemoryEventStore())
        assert len(read) == 700

    run(work)


def test_migration_goes_on_while_events_come_files_rotate_and_are_cleared(tmp_path: Path) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path, file_per_session=False, rotate_size=4000)
        await store.store_many([event(n, session_id="old") for n in range(40)])
        found: list[str] = []
        async for page in store.iterate(batch=10):
            found += [each.event_id for each in page]
            if len(found) == 10:
                await store.store_many([event(n, session_id="new") for n in range(40, 70)])
                await store.clear(session_id="old", end_time=START + timedelta(minutes=15))
        assert found == [f"evt_{n}" for n in [*range(10), *range(15, 70)]]

    run(work)


def test_any_session_has_a_file(tmp_path: Path) -> None:
    sessions = ["会议" * 14, "会议" * 200, "a/../b", "nul\0", "x" * 400, "x" * 401]

    async def work() -> None:
        store = FileEventStore(tmp_path)
        for n, session_id in enumerate(sessions):
            await store.store(event(n, session_id=session_id))
        other = FileEventStore(tmp_path)
        for n, session_id in enumerate(sessions):
            assert await ids(other, session_id=session_id) == [f"evt_{n}"]
        assert len(list(tmp_path.iterdir())) == len(sessions)

    run(work)


def test_a_file_that_was_written_anew_in_place_is_read_anew(tmp_path: Path) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path, file_per_session=False)
        other = FileEventStore(tmp_path / "other", file_per_session=False)
        await store.store_many([event(n) for n in range(3)])
        assert await ids(store) == ["evt_2", "evt_1", "evt_0"]
        await other.store_many([event(n, data={"longer": "x" * 500}) for n in range(5, 9)])
        number = (path := tmp_path / "events.jsonl").stat().st_ino
        path.write_bytes((tmp_path / "other" / "events.jsonl").read_bytes())
        assert path.stat().st_ino == number
        assert await ids(store) == ["evt_8", "evt_7", "evt_6", "evt_5"]
        assert await ids(store, oldest_first=True) == ["evt_5", "evt_6", "evt_7", "evt_8"]

    run(work)


def test_two_stores_of_a_directory_have_one_order_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 1_772_366_400 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: now_ns)

    async def work() -> None:
        nonlocal now_ns
        one, other = FileEventStore(tmp_path), FileEventStore(tmp_path)
        for n in range(12):
            store = one if n in (0, 2, 3, 4, 8) else other
            await store.store(event(n, session_id=f"s{n % 3}"))
            now_ns -= 10**12
        await FileEventStore(tmp_path).store(event(12))
        for store in (one, other):
            assert await ids(store, oldest_first=True) == [f"evt_{n}" for n in range(13)]

    run(work)


def test_older_copies_in_files_of_other_sessions_go_with_the_event(tmp_path: Path) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path)
        await store.store_many([event(n, session_id="a") for n in range(3)])
        await store.store(event(1, session_id="b"))
        reader = FileEventStore(tmp_path)
        assert await ids(reader, session_id="a") == ["evt_2", "evt_0"]
        assert await ids(reader, session_id="b") == ["evt_1"]
        assert await reader.clear(session_id="b") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["session_a.jsonl"]
        assert len((tmp_path / "session_a.jsonl").read_bytes().splitlines()) == 2
        await store.store(event(0, session_id="c"))
        assert await store.clear(session_id="a") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["session_c.jsonl"]
        assert await ids(reader) == ["evt_0"]

    run(work)


@pytest.mark.parametrize("format", ["jsonl", "json"])
def test_what_a_killed_process_had_staged_goes_with_the_events(
    tmp_path: Path, format: Format
) -> None:
    left = tmp_path / f"session_s.{format}.amber-{'0' * 16}.tmp"
    other = tmp_path / f"report.csv.amber-{'0' * 16}.tmp"

    async def work() -> None:
        store = FileEventStore(tmp_path, format=format)
        await store.store(event(0, session_id="s"))
        left.write_text("events", "utf-8")
        other.write_text("of another program", "utf-8")
        assert await ids(store) == ["evt_0"]
        assert await store.clear() == 1
        assert list(tmp_path.iterdir()) == [other]
        assert await FileEventStore(tmp_path / "missing", format=format).clear() == 0

    run(work)
