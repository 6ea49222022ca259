"""Evidence: what a new fact means for the memories of its owner.

    the same text        ignored; of an event only on the same day
    its negation         the memory is changed, or deleted where it is so no longer
    the same slot        the memory is changed: name, home, employer ...
    anything else        a new memory

Invariants:
- A memory is changed or deleted by certain evidence only (facts.py). Missing an update leaves two
  memories, and a false one would destroy a fact.
- Memories are found by keys, so the number of them does not count.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final, Protocol

from amberdb import Document
from amberdb.memory.facts import Claim, Fact, fact_of
from amberdb.memory.types import Action, Decision, Layer

_DIGEST_BYTES: Final = 12


class Memories(Protocol):
    """The memories of one owner."""

    def having(self, layer: Layer, key: str) -> Sequence[Document]:
        """Those with a key of keys_of()."""
        ...

    def has(self, layer: Layer, memory_id: str) -> bool:
        """Whether a memory is there."""
        ...


def keys_of(layer: Layer, content: str) -> list[str]:
    """The keys by which a memory is found. They have no text in them."""
    fact = fact_of(content)
    keys = [_of_text(fact)]
    if layer == "profile":
        keys += map(_of_claim, fact.claims)
        if fact.slot is not None:
            keys.append(_of_slot(fact.slot))
    return keys


def settled(decision: Decision, memories: Memories, now: datetime) -> Decision:
    """The decision by the memories that the owner has: on an insert by what is evident, and so on
    a content whose memory is gone."""
    layer, content = decision.memory_layer, decision.content
    if decision.memory_id is not None and not memories.has(layer, decision.memory_id):
        gone: Action = "ignore" if content is None else "insert"
        decision = replace(decision, action=gone, memory_id=None)
    if decision.action != "insert" or content is None:
        return decision
    fact = fact_of(content)
    told = _day(decision.created_at or now)
    for memory in memories.having(layer, _of_text(fact)):
        if layer == "profile" or _day(memory.get("created_at") or now) == told:
            return _changed(decision, "ignore", memory, "known already")
    if layer == "event":
        return decision
    for contrary in (claim.contrary() for claim in fact.claims):
        for memory in memories.having(layer, _of_claim(contrary)):
            if fact_of(memory["content"]).names != fact.names:
                continue
            if fact.has_ended:
                return _changed(decision, "delete", memory, f"no longer true, since: {content}")
            return _changed(decision, "update", memory, f"the contrary of: {memory['content']}")
    if fact.slot is not None:
        for memory in memories.having(layer, _of_slot(fact.slot)):
            return _changed(decision, "update", memory, f"in place of: {memory['content']}")
    return decision


def _changed(decision: Decision, action: Action, memory: Document, reason: str) -> Decision:
    return replace(decision, action=action, memory_id=memory["id"], reason=reason)


def _of_text(fact: Fact) -> str:
    return f"={_digest(fact.text)}"


def _of_claim(claim: Claim) -> str:
    return f"{'!' if claim.is_negated else '~'}{_digest(claim.statement)}"


def _of_slot(slot: str) -> str:
    return f"@{slot}"


def _digest(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")  # half a pair is refused by its field, later
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _day(time: datetime) -> object:
    return time.astimezone(UTC).date()
