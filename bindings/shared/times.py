"""Times as other programs write them, read as datetimes in UTC.

    2026-02-23T00:41:00Z   2026-02-23 00:41:00   2026-02-23    ISO 8601 text
    1771807260   1771807260.5   1771807260000   "1771807260"   epoch seconds, milliseconds or finer

Invariants:
- A time is taken as it is meant, or refused by its field: nothing is guessed or cut.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_MAX: Final = 10**11
"""Numbers above are milliseconds, or finer: as seconds they would be after the year 5000."""
_EPOCH_TEXT: Final = re.compile(r"-?\d{9,20}(?:\.\d{1,9})?")
"""Text of as many digits is epoch time; 20260102 is a date."""


def time_of(field: str, value: Any, zone: tzinfo) -> datetime:
    """A time of a source. One without a zone is in `zone`. Raises ValueError."""
    try:
        if isinstance(value, str):
            text = value.strip()
            value = float(text) if _EPOCH_TEXT.fullmatch(text) else datetime.fromisoformat(text)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=zone)).astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return of_epoch(value)
    except (OverflowError, ValueError):
        pass
    raise ValueError(
        f"{field} must be ISO 8601 text, or epoch seconds or milliseconds, not {value!r:.80}"
    )


def of_epoch(value: float) -> datetime:
    """The time of epoch seconds, milliseconds or microseconds. Raises OverflowError, ValueError."""
    largest, microseconds = _SECONDS_MAX, 1_000_000
    while abs(value) > largest and microseconds > 1:
        largest, microseconds = largest * 1_000, microseconds // 1_000
    return _EPOCH + timedelta(microseconds=round(value * microseconds))
