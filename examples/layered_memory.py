"""The memory of an agent in three layers: conversation, events, long-lived facts."""

from datetime import UTC, datetime, timedelta

import amberdb
from amberdb import Database, Ordered

BY_ENTITY = Ordered("entity_id", "created_at")


def remember(db: Database, turn: dict[str, str], facts: dict[str, str]) -> None:
    """A turn of a conversation, and what was understood of it, in one commit."""
    now = datetime.now(UTC)
    entity = turn["entity_id"]
    with db.transaction() as tx:
        said = tx["log"].put({**turn, "created_at": now})
        for name, value in facts.items():
            # A profile fact has a fixed id: what is learnt later replaces it.
            tx["profile"].put(
                {"id": f"{entity}/{name}", "entity_id": entity, "value": value, "created_at": now}
            )
        until = now + timedelta(days=30)
        event = {"entity_id": entity, "source": said, "created_at": now, "until": until}
        tx["event"].put({**event, "content": turn["content"]})


def context(db: Database, entity: str) -> str:
    """What to put in front of the model before the next answer."""
    with db.snapshot() as at:  # all layers as of one moment
        mine = {"entity_id": entity}
        facts = at["profile"].find(mine)
        recent = at["event"].find(mine, order_by="-created_at", limit=5)
    lines = [f"{fact['id'].partition('/')[2]}: {fact['value']}" for fact in facts]
    return "\n".join(lines + [f"- {event['content']}" for event in reversed(recent)])


with amberdb.open("layered_memory.amber") as db:
    db.collection("log", indexes=[BY_ENTITY])
    db.collection("profile", indexes=[BY_ENTITY])
    db.collection("event", indexes=[BY_ENTITY], expires_at="until")

    remember(db, {"entity_id": "lin", "content": "I live in Hangzhou."}, {"city": "Hangzhou"})
    remember(db, {"entity_id": "lin", "content": "I moved to Ningbo!"}, {"city": "Ningbo"})

    prompt = context(db, "lin")
    print(prompt)
    assert "city: Ningbo" in prompt
    assert "city: Hangzhou" not in prompt
