"""A row about user profiles: one read, decoded, compared with a SQLite table and with JSON files.

Invariants:
- Profiles are compared field by field; times that AmberDB adds are left out.
"""

from collections.abc import Iterator
from typing import Any

from amberdb.profiles.profiles import MAPS
from bench.engines.profiles import AmberProfiles, ProfileEngine, ProfileFiles, ProfileTable
from bench.harness.family import Family
from bench.harness.operation import Draw, Operation
from bench.harness.row import Row
from bench.harness.scale import Scale
from bench.rows.speed import random_of
from bench.workloads.events import Document

_PROFILES = 10_000


def _profiles(scale: Scale, start: int, count: int) -> Iterator[Document]:
    del scale
    for number in range(start, start + count):
        yield {
            "user_id": f"user{number}",
            "user_name": f"用户{number}",
            "basic_info": {"city": "杭州", "age": 20 + number % 50, "job": "软件工程师"},
            "personality": {"traits": ["外向", "耐心"], "humour": "dry"},
            "life_context": {"family": "two children", "pets": ["猫"], "moved": 2020},
            "interests": {"sports": ["running"], "food": ["茶", "noodles"], "music": []},
        }


PROFILES: Family[ProfileEngine] = Family(
    name="profiles",
    kinds=(AmberProfiles, ProfileTable, ProfileFiles),
    count=lambda scale: min(_PROFILES, scale.base),
    documents=_profiles,
    rounds=lambda scale: scale.rounds,
)


def _users(draw: Draw) -> list[str]:
    rng = random_of(draw, "profiles")
    count = draw.count(draw.scale.gets // 5)
    return [f"user{draw.place(rng.random())}" for _ in range(count)]


def _told(engine: ProfileEngine, user_id: str) -> list[Any]:
    found = engine.get(user_id) or {}
    return [found.get(name) for name in ("user_id", "user_name", *MAPS)]


PROFILE: Operation[ProfileEngine, str] = Operation(
    title="one profile of at most 10,000, decoded",
    family=PROFILES,
    items=_users,
    call=lambda engine, user_id: engine.get(user_id),
    answer=_told,
    is_short=True,
)

ROWS = (Row("profiles", "one user profile, and as JSON file or table", operations=(PROFILE,)),)
