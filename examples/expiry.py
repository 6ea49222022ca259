"""Expiry: an expired document is invisible at once, and removed from the files a little later."""

import time
from datetime import UTC, datetime, timedelta

import amberdb

ahead_s = 0.0


def clock() -> float:
    """Epoch seconds that can be turned on; without `clock=` it is the machine's."""
    return time.time() + ahead_s


with amberdb.open("expiry.amber", clock=clock) as db:
    notes = db.collection("note", expires_at="until")
    now = datetime.now(UTC)
    notes.put({"id": "parking", "text": "level 3, row F", "until": now + timedelta(hours=8)})
    notes.put({"id": "allergy", "text": "no peanuts", "until": None})  # permanent
    assert len(notes) == 2

    # A patch may give a document more time, or none.
    notes.update("parking", {"until": now + timedelta(minutes=20)})

    ahead_s = 30 * 60
    assert notes.get("parking") is None
    assert [note["id"] for note in notes.find()] == ["allergy"]

    # The background does this about a minute later; here it is done at once.
    print("removed from disk:", db.expire())
    assert notes.get("allergy") is not None
