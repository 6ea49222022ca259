"""Filters that several systems ask with."""

from datetime import datetime
from typing import Any


def between(field: str, since: datetime | None, until: datetime | None) -> dict[str, Any]:
    """From `since` on, before `until`; empty where neither is given."""
    times = {"$gte": since, "$lt": until}
    bounds = {sign: value for sign, value in times.items() if value is not None}
    return {field: bounds} if bounds else {}
