"""JSON text for columns of type JSON: documents as amberdb._jsonl.text writes them, but for what
such a column changes or refuses.

    {"$amber": ["float", "1e+300"]}    a float that PostgreSQL's JSONB would return as an int, or
                                       without the sign of its zero
    {"$amber": ["text", ["a", "b"]]}   a text with NUL between its parts, which JSONB refuses
    {"$amber": ["map", [[k, v], ...]]} a map with such a key, or whose only key is "$amber"

Invariants:
- loads(dumps(x)) == x with equal types, also after a column has parsed the text and written it
  anew. The order of keys is not kept: JSONB has its own.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from amberdb._jsonl.text import from_plain, to_plain

_MARK: Final = "$amber"
_UNSAFE: Final = re.compile(r"\\u0000|\$amber|[0-9][eE]|-0\.0")
"""Text without a match has nothing to guard; a match may be in a text, and harmless."""


def dumps(value: Mapping[str, Any]) -> str:
    """JSON text; characters beyond ASCII are not escaped."""
    plain = to_plain(value)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    if _UNSAFE.search(text) is None:
        return text
    return json.dumps(_guarded(plain), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """The value that dumps() wrote. Raises ValueError."""
    if isinstance(text, bytes):
        text = text.decode()
    value = msgspec.json.decode(text)
    return from_plain(_unguarded(value)) if "$" in text else value


def _guarded(value: Any) -> Any:
    if isinstance(value, float):
        text = repr(value)
        is_unsafe = "e" in text or text == "-0.0"
        return {_MARK: ["float", text]} if is_unsafe else value
    if isinstance(value, str):
        return {_MARK: ["text", value.split("\0")]} if "\0" in value else value
    if isinstance(value, list):
        return [_guarded(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        items = cast(dict[str, Any], value)
        if list(items) == [_MARK] or any("\0" in key for key in items):
            return {_MARK: ["map", [[_guarded(k), _guarded(v)] for k, v in items.items()]]}
        return {key: _guarded(item) for key, item in items.items()}
    return value


def _unguarded(value: Any) -> Any:
    if isinstance(value, list):
        return [_unguarded(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, dict):
        return value
    items = cast(dict[str, Any], value)
    if list(items) != [_MARK]:
        return {key: _unguarded(item) for key, item in items.items()}
    kind, inner = items[_MARK]
    if kind == "float":
        return float(inner)
    if kind == "text":
        return "\0".join(inner)
    return {_unguarded(key): _unguarded(item) for key, item in inner}
