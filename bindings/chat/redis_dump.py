"""The values of a Redis dump in JSON: maps that stand under its keys, in texts, lists, hashes and
sorted sets.

    {"key": value, ...}                          also a list of such maps, one for each database
    {"key": {"type": "list", "value": [...]}}
    {"key": ..., "type": ..., "value": ...}      one on each line, or a list of them

Invariants:
- A key is read whole or not at all: what is no map, or is not in the shape of a row, is told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from amberdb._jsonl.text import loads

_BOM: Final = b"\xef\xbb\xbf"
_WRAPPED: Final = frozenset({"db", "key", "type", "value", "ttl", "size", "encoding", "expiry"})
_EPOCH_MIN: Final = 10**9
"""A score that is a time is above; seconds of 2001."""


def entries(data: bytes) -> Iterator[tuple[str, Any]]:
    """The keys and values. Raises ValueError."""
    data = data.removeprefix(_BOM)
    try:
        dump: object = loads(data)
    except ValueError:
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        dump = [loads(line) for line in lines]
    for each in cast(list[object], dump) if isinstance(dump, list) else [dump]:
        if not isinstance(each, Mapping):
            raise ValueError(f"a dump is a map of keys, or a list of maps, and not {each!r:.80}")
        keys = cast(Mapping[str, Any], each)
        if "key" in keys and "value" in keys and keys.keys() <= _WRAPPED:
            yield str(keys["key"]), keys
        else:
            yield from keys.items()


def maps_in(value: Any, is_row: Callable[[Mapping[str, Any]], bool]) -> Iterator[dict[str, Any]]:
    """The rows in the value of a key. A member of a sorted set has its score as a time, if it has
    none."""
    if isinstance(value, str):
        try:
            value = loads(value)
        except ValueError:
            return
        if isinstance(value, str):
            return
    if isinstance(value, list):
        for each in cast(Sequence[Any], value):
            yield from _scored(each, is_row) or maps_in(each, is_row)
    elif isinstance(value, Mapping):
        fields = cast(dict[str, Any], value)
        if is_row(fields):
            yield dict(fields)
        elif "value" in fields and fields.keys() <= _WRAPPED:
            inner = fields["value"]
            if fields.get("type") == "zset" and isinstance(inner, Mapping):
                inner = [[member, score] for member, score in cast(dict[str, Any], inner).items()]
            yield from maps_in(inner, is_row)
        else:
            for each in fields.values():
                yield from maps_in(each, is_row)


def _scored(
    value: object, is_row: Callable[[Mapping[str, Any]], bool]
) -> list[dict[str, Any]] | None:
    """The rows of [member, score] of a sorted set; None if it is no such pair."""
    if not isinstance(value, list) or len(cast(Sequence[Any], value)) != 2:
        return None
    member, score = cast(Sequence[Any], value)
    try:
        time = float(score)
    except (TypeError, ValueError):
        return None
    timed: dict[str, Any] = {"created_at": time} if time >= _EPOCH_MIN else {}
    return [
        timed | {name: row[name] for name in row if row[name] not in (None, "")}
        for row in maps_in(member, is_row)
    ]
