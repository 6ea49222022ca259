"""Event documents: constants, and a generator with one fixed seed.

Invariants:
- Document number i is the same in every run and for every engine: the id, the entity and the time
  are pure functions of i, the rest comes from a generator seeded per block of 1,000.
- Ids have 24 characters and ascend with time; `created_at` is aware and unique.
- Document numbers never collide between rows: each row takes its documents above `BASE_DOCUMENTS`
  or has a database of its own.
"""

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

Document = dict[str, Any]

SEED = 20260601
BASE_DOCUMENTS = 100_000
"""Loaded before the latency rows."""
GROWTH_DOCUMENTS = 1_000_000
"""The large size of the growth and memory rows (`--size`)."""
BATCH_DOCUMENTS = 1_000
ENTITIES = 1_000
NEWEST = 50
WRITER_THREADS = 8
ROUNDS = 5

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=1_700)
EXPIRED = datetime(2025, 12, 1, tzinfo=UTC)

INDEXES = (("entity_id", "created_at"), ("created_at",), ("category", "created_at"))
CATEGORIES = (
    *("work", "family", "health", "travel", "food", "music"),
    *("study", "finance", "sport", "weather", "plans", "places"),
)
_MEMORY_TYPES = ("episodic", "semantic", "procedural", "working", "profile")
_SOURCES = ("chat", "mail", "calendar", "import")
_FRAGMENTS = (
    "moved the weekly review to Thursday",
    "prefers short answers in the morning",
    "would rather take the train than fly",
    "asked to be reminded about the dentist",
    "likes black coffee without sugar",
    "is learning to play the cello",
    "finished the second draft of the report",
    "wants the budget before Friday",
    "changed the password of the old account",
    "the meeting room is on the third floor",
    "下午三点在二号会议室开会",
    "她更喜欢喝绿茶而不是咖啡",
    "下周要去上海出差三天",
    "孩子的生日是五月十二号",
    "请把合同发给法务部门审核",
    "最近在学习如何使用向量检索",
    "周末打算和家人一起去爬山",
    "医生建议每天早睡半个小时",
    "项目的截止日期推迟到了月底",
    "他对花生过敏, 点菜时要注意",
)
_FRAGMENTS_PER_CONTENT = 9
_ID_MASK = (1 << 48) - 1


def document_id(number: int) -> str:
    """24 hex digits: 12 of milliseconds, 12 pseudo-random."""
    milliseconds = int((EPOCH + number * STEP).timestamp() * 1000)
    return f"{milliseconds:012x}{(number * 0x9E3779B97F4A7C15 >> 16) & _ID_MASK:012x}"


def entity_id(number: int) -> str:
    """One of ENTITIES, uniformly distributed, so that every entity has 50 newest documents."""
    return f"entity-{(number * 2654435761 >> 7) % ENTITIES:04d}"


def documents(start: int, count: int, *, expired_every: int = 0) -> Iterator[Document]:
    """Documents number `start` to `start + count`; every `expired_every`-th has expired.

    `start` is a multiple of BATCH_DOCUMENTS: the generator is seeded per block.
    """
    assert start % BATCH_DOCUMENTS == 0
    for block in range(start, start + count, BATCH_DOCUMENTS):
        rng = random.Random(f"{SEED}:{block}")
        for number in range(block, min(block + BATCH_DOCUMENTS, start + count)):
            document = _document(number, rng)
            if expired_every and number % expired_every == 0:
                document["expiry_date"] = EXPIRED
            yield document


def batches(
    start: int, count: int, size: int = BATCH_DOCUMENTS, *, expired_every: int = 0
) -> Iterator[list[Document]]:
    """documents() in lists of `size`."""
    return in_batches(documents(start, count, expired_every=expired_every), size)


def in_batches(
    documents: Iterable[Document], size: int = BATCH_DOCUMENTS
) -> Iterator[list[Document]]:
    """The documents in lists of `size`; the last may be shorter."""
    source = iter(documents)
    while batch := list(islice(source, size)):
        yield batch


def ids(documents: Iterable[Document]) -> list[str]:
    return [document["id"] for document in documents]


def _document(number: int, rng: random.Random) -> Document:
    fragments = rng.choices(_FRAGMENTS, k=_FRAGMENTS_PER_CONTENT)
    return {
        "id": document_id(number),
        "entity_id": entity_id(number),
        "memory_type": rng.choice(_MEMORY_TYPES),
        "category": rng.choice(CATEGORIES),
        "content": "; ".join(fragments),
        "created_at": EPOCH + number * STEP,
        "score": rng.random(),
        "is_permanent": rng.random() < 0.2,
        "metadata": {"source": rng.choice(_SOURCES), "turn": number % 97, "lang": "zh-en"},
    }
