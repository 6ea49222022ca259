"""A row about the chat buffer: saving a turn in its hot tier, compared with a Redis that syncs
every second.

Invariants:
- Redis does the same work in one round trip; without redis-server the row has AmberDB alone."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amberdb
from amberdb.chat import ChatBuffer
from amberdb.chat.buffer import TTL_SECONDS
from bench.engines.database import library
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave

_REDIS = "redis, appendfsync everysec"
_START_S = 10.0
_ASKED = "下午的会议改到几点了？"
_ANSWERED = "改到三点了，在二楼的会议室。"


def chat(context: Context) -> Iterator[Line]:
    where = context.directory / "chat"
    where.mkdir(parents=True, exist_ok=True)
    count = 10 * context.scale.puts
    db = amberdb.open(where / "chat.amber")
    buffer = ChatBuffer(db)
    turns: dict[str, Callable[[int, Sampler], None]] = {AMBER: _turn(_to_buffer(buffer), count)}
    budget = Budget(1.0, against=_REDIS)
    title = "one turn kept in the hot tier, one client"
    program = shutil.which("redis-server")
    notes: dict[str, Any] = {}
    if program is None:
        notes["redis"] = "redis-server is not installed"
        measured = interleave(context.scale.rounds, turns)
    else:
        with _redis(program, where) as client:
            turns[_REDIS] = _turn(_to_redis(client), count)
            measured = interleave(context.scale.rounds, turns)
    db.close()
    yield Line("chat", title, "us", measured, budget, notes)


def _turn(save: Callable[[int], object], count: int) -> Callable[[int, Sampler], None]:
    return lambda number, sampler: sampler.each(save, range(count))


def _to_buffer(buffer: ChatBuffer) -> Callable[[int], object]:
    return lambda number: buffer.save_chat(
        _ASKED,
        _ANSWERED,
        f"conversation{number % 50}",
        "user",
    )


def _to_redis(client: Any) -> Callable[[int], object]:
    """The turn under a key with a time to live, and the key in a queue of pending turns, in one
    round trip."""

    def save(number: int) -> object:
        key = f"chat:{number}:{time.time_ns()}"
        turn = {
            "user_message": _ASKED,
            "assistant_message": _ANSWERED,
            "conversation_id": f"conversation{number % 50}",
            "user_id": "user",
            "created_at": time.time(),
        }
        pipe = client.pipeline(transaction=True)
        pipe.setex(key, TTL_SECONDS, json.dumps(turn, ensure_ascii=False))
        pipe.rpush("pending", key)
        return pipe.execute()

    return save


@contextmanager
def _redis(program: str, where: Path) -> Generator[Any]:
    """A client of a server started for the row, on a Unix socket."""
    redis = library("redis")
    socket = where / "redis.sock"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "dir": str(where),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    server = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(unix_socket_path=str(socket))
        deadline = time.monotonic() + _START_S
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield client
    finally:
        server.terminate()
        server.wait()


ROWS = (Row("chat", "saving a turn in a chat buffer, compared with Redis", chat),)
