"""Restores at random points of a larger database, compared with what it was there.

python tests/crash/points.py --documents 10000 --points 1000 --json PATH --scratch DIR

Between two backups there are writes of all kinds, a checkpoint at least, and once an unclean end.
Compactions end a chain, and a full backup begins the next one.
"""

import argparse
import json
import platform
import random
import shutil
import sys
import time
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import amberdb
from amberdb import Database, Ordered, Text, Unique
from support.databases import FakeClock, audited
from support.reference import Doc

OPTIONS: dict[str, Any] = {"background": False, "segment_bytes_max": 1 << 20, "map_bytes": 1 << 32}
INDEXES: list[Any] = [Ordered("n"), Unique("key"), Text("text")]
Changes = dict[str, Doc | None]
Chain = list[Path]


class History:
    """What each commit changed; a state is made of all up to it."""

    def __init__(self) -> None:
        self.lsns: list[int] = []
        self._changes: list[Changes] = []

    def add(self, db: Database, changes: Changes) -> None:
        self.lsns.append(db.stats()["last_lsn"])
        self._changes.append(changes)

    def at(self, lsn: int) -> dict[str, Doc]:
        found: dict[str, Doc] = {}
        for changes in self._changes[: bisect_right(self.lsns, lsn)]:
            for id, doc in changes.items():
                if doc is None:
                    found.pop(id, None)
                else:
                    found[id] = doc
        return found


def commit(db: Database, rng: random.Random, history: History, documents: int) -> None:
    number = len(history.lsns)
    changes: Changes = {}
    for _ in range(rng.choice((1, 1, 1, 2, 20))):
        id = f"d{rng.randrange(documents)}"
        words = f"word{rng.randrange(500)} umbrella {number}"
        doc: Doc = {"id": id, "n": number, "key": f"{id}/{number}", "text": words}
        changes[id] = None if rng.random() < 0.2 else doc
    with db.transaction(sync="os") as tx:
        for id, changed in changes.items():
            if changed is None:
                tx["n"].delete(id)
            else:
                tx["n"].put(changed)
    history.add(db, changes)


def make(root: Path, args: argparse.Namespace, rng: random.Random) -> tuple[list[Chain], History]:
    history = History()
    path, chains = root / "0.amber", [[root / "full"]]
    db = amberdb.open(path, **OPTIONS, clock=FakeClock())
    docs: dict[str, Doc] = {
        f"d{n}": {"id": f"d{n}", "n": n, "key": f"k{n}", "text": f"word{n % 500}"}
        for n in range(args.documents)
    }
    db.collection("n", indexes=INDEXES).put_many(docs.values())
    history.add(db, {**docs})
    db.backup(chains[0][0])
    compacted = {
        args.increments * (n + 1) // (args.compactions + 1) for n in range(args.compactions)
    }
    for number in range(args.increments):
        if number in compacted:
            db.compact()
            chains.append([root / f"full{number}"])
            db.backup(chains[-1][0])
        for step in range(args.commits):
            commit(db, rng, history, args.documents)
            if step == args.commits // 2:
                db.checkpoint()
            if (number, step) == (args.increments // 2, args.commits - 10):
                db.sync()
                shutil.copytree(path, root / "1.amber")  # as a process that died would leave it
                db.close()
                path = root / "1.amber"
                db = amberdb.open(path, **OPTIONS, clock=FakeClock())
        chain = chains[-1]
        chain.append(root / f"later{number}")
        db.backup(chain[-1], base=chain[-2], compress="zstd" if number % 2 else None)
    db.close()
    return chains, history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    counts = {"documents": 10_000, "increments": 10, "compactions": 3, "commits": 300}
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    start, rng = time.monotonic(), random.Random(args.seed)
    args.scratch.mkdir(parents=True)
    chains, history = make(args.scratch, args, rng)
    target = args.scratch / "restored.amber"
    firsts = [amberdb.verify_backup(chain)[0].lsn for chain in chains]
    done: Counter[int] = Counter()
    for until in rng.sample([lsn for lsn in history.lsns if lsn >= firsts[0]], args.points):
        if time.monotonic() - start > args.seconds:
            break
        number = bisect_right(firsts, until) - 1
        amberdb.restore(chains[number], target, until=until, checkpoint_bytes=1 << 20, **OPTIONS)
        with audited(target, clock=FakeClock()) as db:
            found = {doc["id"]: doc for doc in db.collection("n").documents()}
        assert found == history.at(until), f"seed {args.seed}, Lsn {until}"
        shutil.rmtree(target)
        done[number] += 1
        print(f"\r{done.total()} restores", end="", file=sys.stderr)
    figures = {
        "command": f"python tests/crash/points.py --seed {args.seed}",
        "python": platform.python_version(),
        "documents": args.documents,
        "increments": args.increments,
        "commits": len(history.lsns),
        "compactions": args.compactions,
        "points": done.total(),
        "points by chain": [done[number] for number in range(len(chains))],
        "wrong": 0,
        "seconds": round(time.monotonic() - start),
    }
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n{figures}")
    shutil.rmtree(args.scratch)


if __name__ == "__main__":
    main()
