"""A snapshot: many reads at one Lsn, for a report that is consistent while others write."""

import amberdb

with amberdb.open("snapshot.amber") as db:
    orders = db.collection("order")
    items = db.collection("item")
    orders.put({"id": "o1", "total": 30})
    items.put_many([{"id": "i1", "order": "o1", "price": 10}])
    items.put_many([{"id": "i2", "order": "o1", "price": 20}])
    orders.delete("o2")

    with db.snapshot() as at:
        orders.put({"id": "o2", "total": 5})  # never waits for the snapshot
        items.delete("i1")

        prices = [item["price"] for item in at["item"].find({"order": "o1"})]
        order = at["order"].get("o1")
        assert order is not None
        assert sum(prices) == order["total"]
        assert len(at["order"]) == 1
        print("as of Lsn", at.lsn, "the items add up:", prices)

    # Outside, the present.
    assert len(orders) == 2
    assert "i1" not in items
