"""A row about user profiles: one read, decoded, compared with JSON files and with a SQLite table.

Invariants:
- All three store the same profiles, and return them decoded."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amberdb
from amberdb.profiles import UserProfiles
from amberdb.profiles.profiles import MAPS
from bench.harness.context import Context
from bench.harness.line import AMBER, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave

_PROFILES = 10_000


def profiles(context: Context) -> Iterator[Line]:
    count = min(_PROFILES, context.scale.base)
    where = context.directory / "profiles"
    where.mkdir(parents=True, exist_ok=True)
    db = amberdb.open(where / "profiles.amber")
    own = UserProfiles(db)
    table = sqlite3.connect(where / "profiles.db")
    table.execute(
        "CREATE TABLE user_memories (user_id TEXT PRIMARY KEY, user_name TEXT, basic_info TEXT,"
        " personality TEXT, life_context TEXT, interests TEXT)"
    )
    for number in range(count):
        user_id, fields = f"user{number}", _fields(number)
        own.save(user_id, fields)
        maps = [json.dumps(fields[name], ensure_ascii=False) for name in MAPS]
        table.execute(
            "INSERT INTO user_memories VALUES (?,?,?,?,?,?)", (user_id, fields["user_name"], *maps)
        )
        (where / f"{user_id}.json").write_text(
            json.dumps(fields, ensure_ascii=False), encoding="utf-8"
        )
    table.commit()
    db.checkpoint()
    rng = random.Random(1)
    asked = [f"user{rng.randrange(count)}" for _ in range(context.scale.gets // 5)]
    reads: dict[str, Callable[[str], object]] = {
        AMBER: own.get,
        "sqlite table": lambda user_id: _of_table(table, user_id),
        "json files": lambda user_id: _of_file(where, user_id),
    }
    measured = interleave(
        context.scale.rounds, {name: _turn(read, asked) for name, read in reads.items()}
    )
    db.close()
    table.close()
    yield Line("profiles", f"one profile of {count:,}, decoded", "us", measured)


def _fields(number: int) -> dict[str, Any]:
    return {
        "user_name": f"用户{number}",
        "basic_info": {"city": "杭州", "age": 20 + number % 50, "job": "软件工程师"},
        "personality": {"traits": ["外向", "耐心"], "humour": "dry"},
        "life_context": {"family": "two children", "pets": ["猫"], "moved": 2020},
        "interests": {"sports": ["running"], "food": ["茶", "noodles"], "music": []},
    }


def _turn(read: Callable[[str], object], asked: list[str]) -> Callable[[int, Sampler], None]:
    return lambda number, sampler: sampler.all(read, asked)


def _of_table(table: sqlite3.Connection, user_id: str) -> dict[str, Any]:
    found = table.execute(
        "SELECT user_name, basic_info, personality, life_context, interests FROM user_memories"
        " WHERE user_id = ?",
        (user_id,),
    ).fetchone()
    maps = {name: json.loads(text) for name, text in zip(MAPS, found[1:], strict=True)}
    return {"user_id": user_id, "user_name": found[0], **maps}


def _of_file(where: Path, user_id: str) -> Any:
    with (where / f"{user_id}.json").open(encoding="utf-8") as file:
        return json.load(file)


ROWS = (Row("profiles", "one user profile, compared with JSON files and a SQLite table", profiles),)
