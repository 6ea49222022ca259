"""Quickstart: open, store, read, query by index."""

from datetime import UTC, datetime

import amberdb
from amberdb import Ordered

with amberdb.open("quickstart.amber") as db:  # a directory, created when missing
    events = db.collection("event", indexes=[Ordered("entity_id", "created_at")])

    id = events.put(
        {
            "entity_id": "lin",
            "content": "Lin prefers tea to coffee.",
            "created_at": datetime.now(UTC),
        }
    )  # on disk when this returns

    print(events.get(id))
    for event in events.find({"entity_id": "lin"}, order_by="-created_at", limit=10):
        print(event["created_at"], event["content"])
