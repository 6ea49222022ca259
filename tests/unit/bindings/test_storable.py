"""Any value in a form that a document can hold: nothing raises, and what is storable stays."""

import enum
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amberdb
from amberdb._shared.storable import (
    DEPTH_MAX,
    REPR_MAX,
    storable,
    storable_map,
    storable_text,
    text_of,
)
from support.databases import audited


class Point(NamedTuple):
    x: int
    y: tuple[int, ...]


class Color(enum.Enum):
    RED = ("r", 1)


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Order:
    item: str
    price: Decimal


class Model:
    """As pydantic's."""

    def model_dump(self) -> dict[str, Any]:
        return {"at": date(2026, 3, 1)}


class Broken(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise OSError("gone")

    def __iter__(self) -> Any:
        return iter(["a"])

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise OSError("gone")


class Long:
    def __repr__(self) -> str:
        return "x" * 99_999


NOON = datetime(2026, 3, 1, 12)


FORMS: list[tuple[Any, Any]] = [
    (Decimal("1.10"), "1.10"),
    (UUID(int=1), str(UUID(int=1))),
    (PurePosixPath("/a/b"), "/a/b"),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    (NOON, NOON.replace(tzinfo=UTC)),
    (NOON.replace(tzinfo=timezone(timedelta(hours=8))), datetime(2026, 3, 1, 4, tzinfo=UTC)),
    (
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=8))),
        "9999-12-31 23:59:59.999999-08:00",
    ),
    (date(2026, 3, 1), "2026-03-01"),
    (time(12, 30), "12:30:00"),
    (timedelta(milliseconds=1500), 1.5),
    (1 << 63, str(1 << 63)),
    (-(1 << 63), -(1 << 63)),
    (10**5000, hex(10**5000)),
    (float("nan"), None),
    (float("inf"), float("inf")),
    ("half \ud83d", "half \ufffd"),
    ("\ud83d\ude00", "\U0001f600"),
    (bytearray(b"ab"), b"ab"),
    (Color.RED, ["r", 1]),
    (Level.HIGH, 3),
    (Point(1, (2,)), {"x": 1, "y": [2]}),
    (Order("tea", Decimal(2)), {"item": "tea", "price": "2"}),
    (Model(), {"at": "2026-03-01"}),
    (deque([1, None]), [1, None]),
    (OrderedDict(a=range(2)), {"a": [0, 1]}),
    (np.array([[1.5, 2]]), [[1.5, 2.0]]),
    (np.int32(7), 7),
    ({1: "a", "1": "b", None: {2.5: True}}, {"1": "a", "1'": "b", "None": {"2.5": True}}),
    (Broken(), "<Broken, whose text cannot be read: OSError>"),
    (ValueError("no"), "ValueError('no')"),
]


@pytest.mark.parametrize(("value", "stored"), FORMS, ids=lambda value: type(value).__name__)
def test_what_stands_for_a_value(value: Any, stored: Any) -> None:
    found = storable(value)
    assert amberdb.equal(found, stored)
    assert type(found) is type(stored)


def test_what_contains_itself_or_is_too_deep_ends() -> None:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    assert storable(loop)[1]["again"].startswith("[1, {")
    deep: Any = "bottom"
    for _ in range(DEPTH_MAX * 4):
        deep = [deep]
    assert storable(deep)
    assert len(storable(Long())) == REPR_MAX


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.decimals()
    | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


def test_whatever_comes_out_is_stored_and_stays() -> None:
    with audited(":memory:") as db:
        notes = db.collection("note")

        @given(anything)
        def run(value: Any) -> None:
            found = storable({"value": value})
            assert amberdb.equal(storable(found), found)
            notes.put({"id": "a", **found})
            assert amberdb.equal(notes["a"], {"id": "a", **found})

        run()


def test_a_map_that_cannot_be_read_becomes_text() -> None:
    assert storable_map({"a": Broken()}) == {"a": text_of(Broken(), repr)}
    assert storable_map(Broken()) == {"text": text_of(Broken(), repr)}


def test_text_of_whole_characters_is_the_same() -> None:
    text = "whole \U0001f600 \u4f1a"
    assert storable_text(text) == text
