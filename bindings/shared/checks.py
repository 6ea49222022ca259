"""Checks of arguments that several systems make, with the same messages."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

from amberdb import InvalidDocumentError


def check_str(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is a str."""
    if not isinstance(value, str):
        raise InvalidDocumentError(f"{field} must be a str, not {value!r}", field=field)


def check_optional_str(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is None or a str."""
    if value is not None:
        check_str(field, value)


def check_name(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is a str that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidDocumentError(f"{field} must be a non-empty str, not {value!r}", field=field)


def check_text(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is a str with more than white space."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidDocumentError(f"{field} must be a non-blank str, not {value!r}", field=field)


def check_optional_text(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is None or a str with more than white space."""
    if value is not None:
        check_text(field, value)


def check_time(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is a datetime with a time zone."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidDocumentError(f"{field} must be an aware datetime, not {value!r}", field=field)


def check_optional_time(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is None or a datetime with a time zone."""
    if value is not None:
        check_time(field, value)


def check_optional_name(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is None or a str that is not empty."""
    if value is not None:
        check_name(field, value)


def check_strs(field: str, values: object) -> list[str]:
    """The strs of an iterable. Raises InvalidDocumentError for anything else, also for a str, whose
    characters would be taken for texts."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidDocumentError(
            f"{field} must be a list of str, not {values!r}: write [...] around a single one",
            field=field,
        )
    checked: list[str] = []
    for value in cast(Iterable[object], values):
        check_str(field, value)
        checked.append(cast(str, value))
    return checked


def check_map(field: str, value: object) -> None:
    """Raises InvalidDocumentError unless `value` is a map."""
    if not isinstance(value, Mapping):
        raise InvalidDocumentError(f"{field} must be a map, not {value!r}", field=field)
