"""`python -m bench.readers`: what readers in other processes cost the writer, and what they see.

    put       durable puts of one thread, while 0, 1 and 4 processes read at a steady rate in turns;
              the control: 4 that read another database of the same documents
    refresh   the cost of one refresh: nothing new; one new commit; and a get and a page of 20
    seen      from the beginning of a put until a process that refreshes without pause has its
              document, compared with the time of the put itself

Invariants:
- The conditions take turns within each round; a figure is the median of the rounds, and a ratio is
  of figures of one round.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from threading import Thread
from typing import Any

import amberdb
from amberdb import Collection, Database, Ordered
from bench.readers.reader import PACE_S, Reader, read
from bench.workloads.events import INDEXES, batches, documents

READERS = ("0", "1", "4", "4 elsewhere")
DOCUMENTS = 20_000
PUTS = 1_000


def run(directory: Path, rounds: int, puts: int) -> dict[str, Any]:
    path, other = directory / "bench.amber", directory / "other.amber"
    _load(other).close()
    with _load(path) as db:
        events = db.collection("event")
        readers = [Reader(path) for _ in range(4)]
        elsewhere = [Reader(other) for _ in range(4)]
        asked = dict(zip(READERS, ([], readers[:1], readers, elsewhere), strict=True))
        fresh = documents(DOCUMENTS, rounds * puts * len(READERS))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
        for turn in range(rounds):
            for name in READERS[turn % len(READERS) :] + READERS[: turn % len(READERS)]:
                found[name].append(_puts(events, list(islice(fresh, puts)), asked[name]))
                print(f"round {turn + 1}, {name} readers: {found[name][-1]}", flush=True)
        looks = _idle_looks(readers[0])
        seen = _late(events, readers[0], puts)
        for reader in (*readers, *elsewhere):
            reader.close()
    return {"puts": _summary(found), "rounds": found, "looks_us": looks, "seen": seen}


def _load(path: Path) -> Database:
    """With all documents, settled."""
    db = amberdb.open(path)
    events = db.collection("event", indexes=[Ordered(*fields) for fields in INDEXES])
    for batch in batches(0, DOCUMENTS):
        events.put_many(batch)
    db.checkpoint()
    return db


def _puts(events: Collection, documents: list[Any], readers: list[Reader]) -> dict[str, float]:
    for reader in readers:
        reader.say("pace")
    took: list[float] = []
    for document in documents:
        began = time.perf_counter()
        events.put(document)
        took.append((time.perf_counter() - began) * 1e6)
    reads: list[float] = []
    for reader in readers:
        reader.say("stop")
        reads += json.loads(reader.line())
    return {**_percentiles(took), **({"read_p50": median(reads)} if reads else {})}


def _idle_looks(reader: Reader) -> dict[str, float]:
    reader.say("refresh")
    looks: dict[str, float] = json.loads(reader.line())
    return looks


def _late(events: Collection, reader: Reader, puts: int) -> dict[str, dict[str, float]]:
    reader.say(f"seen {puts // 2}")
    assert reader.line() == "looking\n"
    took: list[float] = []
    answers = Thread(target=lambda: lines.append(reader.line()))
    lines: list[str] = []
    answers.start()
    while answers.is_alive():
        began = time.monotonic()
        events.put({"id": "clock", "began": began})
        took.append((time.monotonic() - began) * 1e3)
    found = json.loads(lines[0])
    return {
        "put_ms": _percentiles(took),
        "late_ms": _percentiles(found["late_ms"]),
        "refresh_us": _percentiles(found["refresh_us"]),
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}


def _summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of the rounds, and of the ratios to the round without readers."""
    return {
        name: {
            part: {
                "us": round(median(one[part] for one in rounds), 1),
                "ratio": round(
                    median(
                        one[part] / base[part] for one, base in zip(rounds, found["0"], strict=True)
                    ),
                    3,
                ),
            }
            for part in ("p50", "p99")
        }
        for name, rounds in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.readers", description="readers beside one writer"
    )
    parser.add_argument("--read", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--puts", type=int, default=PUTS)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    if options.read is not None:
        read(options.read)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = run(Path(directory), options.rounds, options.puts)
    result |= {
        "command": "python -m bench.readers " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "pace_s": PACE_S,
    }
    print(json.dumps({name: result[name] for name in ("puts", "looks_us", "seen")}, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
