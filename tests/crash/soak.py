"""A soak over HTTP: async clients write and read, the server is killed in the middle and started
again, and in the end everything that was acknowledged is read back.

    PYTHONPATH=tests python tests/crash/soak.py [--seconds S] [--clients N] [--kills N] [--seed X]
        [--json PATH] [--directory DIR]

Each client has entities of its own and keeps a ledger of what it was told. A request whose
connection broke may have been done or not: both are right, and nothing else is. The result counts
what is lost (acknowledged and not there, or not as it was told) and what is strange (there, and
nobody asked for it); it fails unless both are 0, the database is sound, and its end was clean.
"""

import argparse
import asyncio
import json
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import amberdb
from support.serving import Server, serving

ENTITIES_EACH = 25
TURNS_EACH = 500
"""Of one conversation."""
PAGE = 1_000
SERVE_WITH = ("--requests-per-s", "1000000", "--flush-every", "20")
KINDS = {"event": 35, "profile": 10, "update": 15, "delete": 5, "chat": 15, "read": 15, "search": 5}
WORDS = ("tea", "umbrella", "meeting", "report", "会议", "工程师", "咖啡", "下午", "音乐")


@dataclass
class Ledger:
    """What one client was told, and what it does not know."""

    live: dict[str, tuple[str, str, str]] = field(default_factory=dict[str, tuple[str, str, str]])
    """memory_id: entity, layer, content."""
    deleted: set[str] = field(default_factory=set[str])
    maybe: dict[str, set[str | None]] = field(default_factory=dict[str, set[str | None]])
    """memory_id: contents that it may have as well; None: it may be gone."""
    maybe_new: set[str] = field(default_factory=set[str])
    """Contents of memories and turns that may be there."""
    turns: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """conversation: ids."""


@dataclass
class Figures:
    """Of all clients."""

    asked: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    broken: int = 0
    latencies_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    lost: list[str] = field(default_factory=list[str])
    strange: list[str] = field(default_factory=list[str])
    read_back: int = 0
    down_s: list[float] = field(default_factory=list[float])
    rss_mib: float = 0.0
    ended_with: int | None = None
    said: list[str] = field(default_factory=list[str])


class Client:
    """One task: a request at a time."""

    def __init__(self, number: int, seed: int, url: str, figures: Figures) -> None:
        self._rng = random.Random(f"{seed}/{number}")
        self._name = f"client{number}"
        self._figures = figures
        self._count = 0
        self._turns = 0
        self._http = httpx.AsyncClient(base_url=url, timeout=30)
        self._ids: list[str] = []
        self.ledger = Ledger()

    async def work(self, until: float) -> None:
        kinds, weights = list(KINDS), list(KINDS.values())
        while time.monotonic() < until:
            (kind,) = self._rng.choices(kinds, weights)
            self._count += 1
            try:
                await getattr(self, f"_{kind}")()
            except httpx.TransportError:
                self._figures.broken += 1
                await self._back()

    async def _back(self) -> None:
        """Waits until the server answers again."""
        while True:
            try:
                if (await self._http.get("/health")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    async def _ask(self, kind: str, method: str, path: str, **more: Any) -> dict[str, Any] | None:
        """None when it was refused."""
        began = time.perf_counter()
        response = await self._http.request(method, path, **more)
        self._figures.latencies_s.setdefault(kind, []).append(time.perf_counter() - began)
        self._figures.asked[kind] += 1
        if response.status_code != 200:
            self._figures.refused[f"{kind} {response.status_code}"] += 1
            return None
        found: dict[str, Any] = response.json()
        return found

    def _text(self) -> str:
        words = " ".join(self._rng.choices(WORDS, k=8))
        return f"{self._name} {self._count}: {words}"

    def _entity(self) -> str:
        return f"{self._name}-{self._rng.randrange(ENTITIES_EACH)}"

    async def _event(self) -> None:
        await self._remember("event")

    async def _profile(self) -> None:
        await self._remember("profile")

    async def _remember(self, layer: str) -> None:
        entity, text = self._entity(), self._text()
        given = {"content": text, "memory_layer": layer}
        self.ledger.maybe_new.add(text)
        told = await self._ask(layer, "POST", f"/memory/user/{entity}", json=given)
        self.ledger.maybe_new.discard(text)
        if told is not None:
            id = told["outcomes"][0]["memory_id"]
            self.ledger.live[id] = (entity, layer, text)
            self._ids.append(id)

    def _known(self) -> str | None:
        while self._ids:
            at = self._rng.randrange(len(self._ids))
            if self._ids[at] in self.ledger.live:
                return self._ids[at]
            self._ids[at] = self._ids[-1]
            self._ids.pop()
        return None

    async def _update(self) -> None:
        id = self._known()
        if id is None:
            return
        entity, layer, _ = self.ledger.live[id]
        text = self._text()
        self.ledger.maybe.setdefault(id, set()).add(text)
        path = f"/memory/user/{entity}/{layer}/{id}"
        given = {"content": text, "reason": "soak"}
        if await self._ask("update", "PUT", path, json=given) is not None:
            self.ledger.live[id] = (entity, layer, text)
            self.ledger.maybe.pop(id)

    async def _delete(self) -> None:
        id = self._known()
        if id is None:
            return
        entity, layer, _ = self.ledger.live[id]
        self.ledger.maybe.setdefault(id, set()).add(None)
        if await self._ask("delete", "DELETE", f"/memory/user/{entity}/{layer}/{id}") is not None:
            self.ledger.maybe.pop(id)
            self.ledger.live.pop(id)
            self.ledger.deleted.add(id)
        else:  # one whose answer was lost before
            self.ledger.live.pop(id)

    async def _chat(self) -> None:
        conversation = f"{self._name}-{self._turns // TURNS_EACH}"
        self._turns += 1
        text = self._text()
        turn = {
            "user_message": text,
            "assistant_message": "好的",
            "conversation_id": conversation,
            "user_id": self._name,
            "important": self._rng.random() < 0.1,
        }
        self.ledger.maybe_new.add(text)
        told = await self._ask("chat", "POST", "/chat", json=turn)
        self.ledger.maybe_new.discard(text)
        if told is not None:
            self.ledger.turns.setdefault(conversation, []).append(told["cid"])

    async def _read(self) -> None:
        path = f"/memory/user/{self._entity()}/{self._rng.choice(('profile', 'events'))}"
        await self._ask("read", "GET", path, params={"limit": 50})

    async def _search(self) -> None:
        text = " ".join(self._rng.choices(WORDS, k=2))
        given = {"text": text, "entity_id": self._entity()}
        await self._ask("search", "GET", "/memory/search", params=given)

    # -- in the end ------------------------------------------------------------------------------

    async def read_back(self) -> None:
        """Compares all with the ledger."""
        ledger = self.ledger
        found: dict[str, str] = {}
        for number in range(ENTITIES_EACH):
            for layer in ("profile", "events"):
                path = f"/memory/user/{self._name}-{number}/{layer}"
                async for memory in self._pages(path):
                    found[memory["id"]] = memory["content"]
        for id, (_, _, content) in ledger.live.items():
            if found.get(id) not in {content, *ledger.maybe.get(id, ())}:
                self._figures.lost.append(f"{id}: {content!r}, and there is {found.get(id)!r}")
        for id, content in found.items():
            if id not in ledger.live and (id in ledger.deleted or content not in ledger.maybe_new):
                self._figures.strange.append(f"{id}: {content!r}")
        for conversation, ids in ledger.turns.items():
            response = await self._http.get(f"/chat/{conversation}", params={"limit": PAGE})
            turns = {turn["id"]: turn["user_message"] for turn in response.json()["turns"]}
            self._figures.lost += [f"turn {id}" for id in ids if id not in turns]
            self._figures.strange += [
                f"turn {id}" for id in turns.keys() - set(ids) if turns[id] not in ledger.maybe_new
            ]
            self._figures.read_back += len(turns)
        self._figures.read_back += len(found)
        await self._http.aclose()

    async def _pages(self, path: str) -> AsyncGenerator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = (await self._http.get(path, params={"limit": PAGE, **after})).json()
            for memory in page["memories"]:
                yield memory
            if page["cursor"] is None:
                return
            after = {"after": page["cursor"]}


async def soak(options: argparse.Namespace, path: Path, seed: int, stack: ExitStack) -> Figures:
    """The clients, and the kills in between; returns when all was read back."""
    figures = Figures()
    server = stack.enter_context(serving(path, *SERVE_WITH))
    port = server.url.rpartition(":")[2]
    clients = [Client(n, seed, server.url, figures) for n in range(options.clients)]
    began = time.monotonic()
    until = began + options.seconds
    working = asyncio.gather(*(client.work(until) for client in clients))
    for kill in range(options.kills):
        at = began + options.seconds * (kill + 1) / (options.kills + 1)
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        server.process.kill()
        server.process.wait()
        down = time.monotonic()
        server = await asyncio.to_thread(again, stack, path, port)
        figures.down_s.append(round(time.monotonic() - down, 2))
        print(f"{at - began:.0f} s: killed; it listens after {figures.down_s[-1]} s", flush=True)
    await working
    print(f"{time.monotonic() - began:.0f} s: reading all back", flush=True)
    figures.rss_mib = rss_mib(server.process.pid)
    for client in clients:
        await client.read_back()
    server.process.send_signal(signal.SIGTERM)
    _, said = await asyncio.to_thread(server.process.communicate, timeout=120)
    figures.ended_with, figures.said = server.process.returncode, said.splitlines()[:20]
    return figures


def again(stack: ExitStack, path: Path, port: str) -> Server:
    return stack.enter_context(serving(path, *SERVE_WITH, "--port", port))


def rss_mib(pid: int) -> float:
    """0 where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def percentiles_ms(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    last = len(ordered) - 1
    return {name: round(ordered[int(last * share)] * 1000, 2) for name, share in shares.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="a soak over HTTP, with kills")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="amberdb-soak-", dir=options.directory) as directory:
        path = Path(directory) / "t.amber"
        with ExitStack() as stack:
            figures = asyncio.run(soak(options, path, seed, stack))
        report = amberdb.check(path)
        size_mib = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20
    asked = sum(figures.asked.values())
    result: dict[str, Any] = {
        "seed": seed,
        "seconds": options.seconds,
        "clients": options.clients,
        "kills": options.kills,
        "down_s": figures.down_s,
        "requests": dict(figures.asked),
        "requests_per_s": round(asked / options.seconds, 1),
        "refused": dict(figures.refused),
        "broken": figures.broken,
        "read_back": figures.read_back,
        "lost": figures.lost,
        "strange": figures.strange,
        "ms": {kind: percentiles_ms(each) for kind, each in sorted(figures.latencies_s.items())},
        "server_rss_mib": round(figures.rss_mib, 1),
        "database_mib": round(size_mib, 1),
        "server_ended_with": figures.ended_with,
        "server_said": figures.said,
        "is_sound": report.ok,
        "machine": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    bad = figures.lost or figures.strange or figures.ended_with or not report.ok
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
