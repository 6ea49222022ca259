"""The document of a profile: its fields, and their types.

Invariants:
- A field of this list has its type, whoever writes the profile; any other field is the caller's.
"""

from collections.abc import Mapping
from typing import Any, Final

from amberdb import REMOVE, Document, InvalidDocumentError
from amberdb._shared.checks import check_optional_str, check_optional_time, check_str

MAPS: Final = ("basic_info", "personality", "life_context", "interests")
"""Fields that hold maps (or lists). Maps are merged."""
TIMES: Final = ("created_at", "last_updated")
FIELDS: Final = (
    "user_id",
    "user_name",
    "conversation_count",
    *MAPS,
    "conversation_summary",
    *TIMES,
)


def empty(user_id: str) -> Document:
    """A new profile, without facts."""
    return {
        "user_id": user_id,
        "user_name": None,
        "conversation_count": 0,
        **{name: {} for name in MAPS},
        "conversation_summary": "",
    }


def changed_fields(before: Document, after: Document) -> Document:
    """The fields of a profile that another state of it does not have, or not so."""
    return {
        name: value for name, value in after.items() if name not in before or before[name] != value
    }


def check_fields(user_id: str, fields: Mapping[str, Any]) -> None:
    """Raises InvalidDocumentError naming the field of a profile that has another type."""
    for name, value in fields.items():
        if value is not REMOVE or name in ("user_id", "conversation_count"):
            _check_field(user_id, name, value)


def _check_field(user_id: str, name: str, value: Any) -> None:
    if name in ("id", "user_id"):
        if value != user_id:
            raise InvalidDocumentError(
                f"the profile of {user_id!r} cannot get the {name} {value!r}", field=name
            )
    elif name == "user_name":
        check_optional_str(name, value)
    elif name == "conversation_summary":
        check_str(name, value)
    elif name == "conversation_count":
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidDocumentError(f"{name} must be an int, not {value!r}", field=name)
    elif name in MAPS:
        if not isinstance(value, Mapping | list | tuple):
            raise InvalidDocumentError(f"{name} must be a map or a list, not {value!r}", field=name)
    elif name in TIMES:
        check_optional_time(name, value)
