"""Paging through a long result while others write: a cursor holds a position, not a count."""

import amberdb
from amberdb import Ordered

with amberdb.open("paging.amber") as db:
    turns = db.collection("turn", indexes=[Ordered("session", "number")])
    turns.put_many({"id": f"t{n:03}", "session": "s1", "number": n} for n in range(100))

    numbers: list[int] = []
    cursor: str | None = None
    while True:
        page = turns.find({"session": "s1"}, order_by="number", limit=30, after=cursor)
        numbers += [turn["number"] for turn in page]
        print(f"{len(page)} turns")

        # A document written before the cursor neither repeats nor hides another one.
        turns.put({"id": "early", "session": "s1", "number": -1})

        cursor = page.cursor  # text: hand it to a client, and take it back later
        if cursor is None:
            break

    assert numbers[-100:] == list(range(100))

    # Only some fields: what comes back is no whole document, and put() refuses it.
    short = turns.find({"session": "s1"}, order_by="-number", limit=2, fields=["number"])
    print(short)

    turns.delete("early")
