"""Secondary indexes: find documents by other fields than the id; ordered, sparse and unique."""

import amberdb
from amberdb import DuplicateKeyError, Ordered, Unique

with amberdb.open("secondary_index.amber") as db:
    people = db.collection(
        "person",
        indexes=[
            Ordered("city", "-age"),  # by city, the oldest first
            Ordered("tags"),  # a list has an entry for each element
            Unique("email", sparse=True),  # those without an email are left out
        ],
    )
    people.put_many(
        [
            {"id": "ada", "city": "London", "age": 36, "tags": ["math"], "email": "ada@x.org"},
            {"id": "alan", "city": "London", "age": 41, "tags": ["math", "running"]},
            {"id": "lin", "city": "Hangzhou", "age": 31, "tags": ["design", "running"]},
        ]
    )

    where = {"city": "London", "age": {"$gte": 18}}
    londoners = people.find(where, order_by=["city", "-age"])
    assert [one["id"] for one in londoners] == ["alan", "ada"]

    runners = people.find({"tags": "running"})
    assert {one["id"] for one in runners} == {"alan", "lin"}

    # How a query is answered; an index changes the speed, never the answer.
    print(people.explain(where, order_by=["city", "-age"]))

    try:
        people.put({"id": "eve", "email": "ada@x.org"})
    except DuplicateKeyError as error:
        print("refused:", error)
    assert "eve" not in people
