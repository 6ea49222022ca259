"""Documents as JSON text, and back without loss.

JSON has no datetimes, bytes, vectors and infinities. A map with exactly one key stands for each:

    {"$date": "2026-02-23T00:41:00.000001Z"}   a datetime, ISO 8601 with its zone
    {"$bytes": "aGVsbG8="}                     bytes, base64
    {"$vector": "AACAPwAAAEA="}                a vector: its float32, little-endian, base64
    {"$vector": {"dim": 2, "data": "AACA..."}} several vectors of one field, joined
    {"$float": "inf"}                          an infinity, also "-inf"
    {"$map": {...}}                            a map whose only key is one of these five

Invariants:
- `loads(dumps(x)) == x` with equal types, for everything that a document may hold.
- A str that looks like a date stays a str, unless its field is named in convert_dates().
- Invalid text raises ValueError with a message of one line, whatever is wrong with it.
- A byte order mark is no part of the text. Bytes are UTF-8, or UTF-16 or UTF-32 if they begin so.
- Dotted paths mean what they mean in filters and indexes (amberdb.value_at).
"""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain
from json import JSONDecodeError, detect_encoding
from typing import Any, NoReturn, cast

import msgspec

import amberdb

_INF = float("inf")


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON text on one line, or indented; characters beyond ASCII are not escaped."""
    return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def loads(text: str | bytes) -> Any:
    """The value that dumps() wrote, or any JSON value. Raises ValueError."""
    try:
        if isinstance(text, bytes):
            text = text.decode(detect_encoding(text))
        text = text.removeprefix("\ufeff")
        value = _parsed(text)
        # Nearly all lines hold no escape, and the walk costs as much as the parser.
        return from_plain(value) if "$" in text or "\\u0024" in text else value
    except UnicodeDecodeError as error:
        raise ValueError(f"not {error.encoding.upper()} at byte {error.start}") from None
    except JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)  # several times faster than json
    except (msgspec.MsgspecError, ValueError):
        # json says where the error is, and reads lone surrogates: a document names their field.
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
        )


def _finite(number: str) -> float:
    value = float(number)
    if value in (_INF, -_INF):
        raise ValueError(f"the number {number:.20} is beyond the range of float: write it as text")
    return value


def _whole(number: str) -> int:
    try:
        return int(number)
    except ValueError:  # Python limits the digits that it converts
        raise ValueError(f"a number has {len(number)} digits: write it as text") from None


def to_plain(value: Any) -> Any:
    """The value in the types of the json module, with the maps of one key in place."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return {"$float": str(value)} if value in (_INF, -_INF) else value
    if isinstance(value, dict):
        items = cast(dict[str, Any], value)
        plain = {name: to_plain(item) for name, item in items.items()}
        return {"$map": plain} if len(items) == 1 and next(iter(items)) in _READERS else plain
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in cast(Sequence[Any], value)]
    return amberdb.to_json(value)


def from_plain(value: Any) -> Any:
    """The reverse of to_plain(). Raises ValueError."""
    if type(value) is dict:
        items = cast(dict[str, Any], value)
        if len(items) == 1:
            ((name, inner),) = items.items()
            if (reader := _READERS.get(name)) is not None:
                return reader(inner)
        return {name: from_plain(item) for name, item in items.items()}
    if type(value) is list:
        return [from_plain(item) for item in cast(Sequence[Any], value)]
    return value


def iso(time: datetime) -> str:
    """ISO 8601 text in UTC, ending in Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_date(text: object) -> datetime:
    """ISO 8601 text with a time zone, as a datetime in UTC. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a date: write it as ISO 8601 text")
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not an ISO 8601 date") from None
    raise ValueError(f"the date {text!r} has no time zone: add Z or +08:00")


def convert_dates(document: dict[str, Any], paths: Sequence[str]) -> None:
    """Converts ISO 8601 text at these dotted paths to datetimes, in place; in a list, each element.
    None and missing fields stay. Raises ValueError naming the path."""
    for path in paths:
        *outer, name = path.split(".")
        for holder in _maps_at(document, outer):
            try:
                if name in holder:
                    holder[name] = _dates(holder[name])
            except ValueError as error:
                raise ValueError(f"field {path!r}: {error}") from None


def _maps_at(document: dict[str, Any], segments: Sequence[str]) -> list[dict[str, Any]]:
    """The maps at a path; through a list, those of its elements that are maps."""
    maps = [document]
    for segment in segments:
        values = [each[segment] for each in maps if segment in each]
        elements = chain.from_iterable(
            cast(Sequence[Any], value) if type(value) is list else (value,) for value in values
        )
        maps = [cast(dict[str, Any], element) for element in elements if type(element) is dict]
    return maps


def _dates(value: Any) -> Any:
    if type(value) is list:
        return [_dates(item) for item in cast(Sequence[Any], value)]
    return value if value is None or isinstance(value, datetime) else parse_date(value)


def _parse_bytes(text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise ValueError(f'{{"$bytes": {text!r}}} is not base64')


def _parse_vector(value: Any) -> Any:
    import numpy as np  # only a database with vectors needs it

    try:
        if isinstance(value, str):
            data = base64.b64decode(value, validate=True)
            return np.frombuffer(data, "<f4").astype(np.float32)
        if isinstance(value, dict):
            several = cast(dict[str, Any], value)
            dim = several["dim"]
            if len(several) == 2 and type(dim) is int and dim > 0:
                return _parse_vector(several["data"]).reshape(-1, dim)
    except (KeyError, ValueError):
        pass
    raise ValueError(f'{{"$vector": {value!r}}} is not base64 of float32')


def _parse_float(text: object) -> float:
    if text not in ("inf", "-inf"):
        raise ValueError(f'{{"$float": {text!r}}} is neither "inf" nor "-inf"')
    return float(text)


def _parse_map(value: object) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError('{"$map": ...} holds a map')
    return {name: from_plain(item) for name, item in cast(dict[str, Any], value).items()}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_READERS: dict[str, Callable[[Any], Any]] = {
    "$date": parse_date,
    "$bytes": _parse_bytes,
    "$float": _parse_float,
    "$vector": _parse_vector,
    "$map": _parse_map,
}
