"""Counts and sums by day in the time zone of Shanghai, streamed."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import amberdb
from amberdb import Ordered
from amberdb.series import series

shanghai = ZoneInfo("Asia/Shanghai")
monday = datetime(2026, 3, 2, tzinfo=shanghai)

with amberdb.open("series.amber") as db:
    calls = db.collection("model_call", indexes=[Ordered("user", "at"), Ordered("at")])
    calls.put_many(
        {
            "id": f"call{number}",
            "user": ("lin", "wang")[number % 2],
            "at": monday + timedelta(hours=7 * number),
            "usage": {"tokens": 100 + number},
        }
        for number in range(20)
    )

    for day in series(db, "model_call", "at", every="day", of="usage.tokens", zone=shanghai):
        print(f"{day.start:%a %d %b}: {day.count} calls, {day.sum} tokens, mean {day.mean}")

    print("Lin, by hour, on Tuesday morning:")
    tuesday = monday + timedelta(days=1)
    hours = series(
        db,
        "model_call",
        "at",
        every="hour",
        where={"user": "lin"},
        since=tuesday,
        until=tuesday + timedelta(hours=8),
        zone=shanghai,
        fill=True,
    )
    counts = [hour.count for hour in hours]
    print(counts)
    assert counts == [0, 0, 0, 0, 1, 0, 0, 0]
