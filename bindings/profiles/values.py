"""The document of a profile from the values that other programs write for it.

    ''  NULL  "null"          as if the field were not there
    "{...}"  "[...]"          the JSON text of a map or a list
    1767323045  1767323045000 epoch seconds, or milliseconds; also ISO 8601 text

Invariants:
- A value is taken as it is meant, or refused by its field: nothing is rounded or cut.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, TypeGuard, cast

from amberdb import Document, InvalidDocumentError
from amberdb._jsonl.text import loads
from amberdb._shared.times import of_epoch
from amberdb.profiles.documents import FIELDS, MAPS, TIMES, check_fields, empty

_NOTHING: Final = frozenset({"", "null", "none"})
_EPOCH_TEXT: Final = re.compile(r"[0-9]{9,}(\.[0-9]+)?")
"""With fewer digits, as 20260102 has, it is a date."""


def document_of(default: str | None, given: Any, zone: tzinfo) -> Document:
    """The document of a profile that was read from a source; `default` is its user where it names
    none. Times without a zone are in `zone`. Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError(f"a profile must be a map, not {given!r:.80}")
    fields = dict(cast(dict[str, Any], given))
    own = fields.pop("id", None)
    user_id = _user(fields.pop("user_id", None)) or default or _user(own)
    if user_id is None:
        raise ValueError("it has no user_id")
    document: Document = {"id": user_id, **empty(user_id), **dict.fromkeys(TIMES)}
    for name, value in fields.items():
        if name not in FIELDS:
            document[name] = value
        elif not _is_nothing(value):
            document[name] = _typed(name, value, zone)
    if own is not None and _user(own) != user_id:
        document.setdefault("source_id", own)
    try:
        check_fields(user_id, document)
    except InvalidDocumentError as error:
        raise ValueError(error.message) from None
    return document


def is_profile(value: Mapping[str, Any]) -> bool:
    """Whether a map has a field of a profile."""
    return not value.keys().isdisjoint(FIELDS)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def _user(value: Any) -> str | None:
    """A user id as text; None where there is none. Raises ValueError."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"user_id must be text, not {value!r:.80}")


def _typed(name: str, value: Any, zone: tzinfo) -> Any:
    """The value of a field of a profile. Raises ValueError."""
    if name in TIMES:
        return _time(name, value, zone)
    if name == "conversation_count":
        return _integer(name, value)
    if name in MAPS and _is_json(value):
        try:
            return loads(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return value


def _is_json(value: Any) -> TypeGuard[str | bytes]:
    return isinstance(value, str | bytes) and value.strip()[:1] in ("{", "[", b"{", b"[")


def _integer(name: str, value: Any) -> int:
    try:
        number = _number(value.strip()) if isinstance(value, str) else value
        if not isinstance(number, bool) and int(number) == number:
            return int(number)
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be a whole number, not {value!r:.80}")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _time(name: str, value: Any, zone: tzinfo) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str):
            text = value.strip()
            if not _EPOCH_TEXT.fullmatch(text):
                time = datetime.fromisoformat(text)
                return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
            value = _number(text)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return of_epoch(value)
    except (OverflowError, ValueError):
        pass
    raise ValueError(
        f"{name} must be ISO 8601 text, or epoch seconds or milliseconds, not {value!r:.80}"
    )
