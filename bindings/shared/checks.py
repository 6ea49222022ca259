"""What several systems refuse at their doors, in the same words."""

from datetime import datetime

from amberdb import InvalidDocumentError


def check_str(field: str, value: object) -> None:
    """Raises InvalidDocumentError."""
    if not isinstance(value, str):
        raise InvalidDocumentError(f"{field} is a str, not {value!r}", field=field)


def check_name(field: str, value: object) -> None:
    """Raises InvalidDocumentError."""
    if not isinstance(value, str) or not value:
        raise InvalidDocumentError(
            f"{field} is a str that is not empty, not {value!r}", field=field
        )


def check_text(field: str, value: object) -> None:
    """Raises InvalidDocumentError."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidDocumentError(
            f"{field} is a text that is not empty, not {value!r}", field=field
        )


def check_time(field: str, value: object) -> None:
    """Raises InvalidDocumentError."""
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise InvalidDocumentError(f"{field} is an aware datetime, not {value!r}", field=field)
