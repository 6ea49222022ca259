"""The arguments and results of the tools of layered memory.

Invariants:
- Times are ISO 8601 text; without a zone they are UTC.
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

OWNER: Final = "user"
"""Whom a memory is about when no entity is named."""

_Time: TypeAlias = Annotated[
    str | None, msgspec.Meta(description="ISO 8601, as 2026-05-01 or 2026-05-01T09:00:00Z")
]
_Entity: TypeAlias = Annotated[
    str | None, msgspec.Meta(description="Whom or what it is about; by default the user")
]
_Reason: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, description="Why, one sentence; why() tells it later")
]


class Remember(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(description="One fact or event, a sentence of its own")]
    layer: Annotated[
        Literal["profile", "event"] | None,
        msgspec.Meta(
            description="profile: a lasting fact. event: something that happened, kept 90 days. "
            "By default profile; event with an expiry or a category of events"
        ),
    ] = None
    category: Annotated[
        str | None,
        msgspec.Meta(
            description="profile: preference, ability, career, education, personality, value. "
            "event: conversation, meeting, action, decision, event, other"
        ),
    ] = None
    expires: _Time = None
    entity: _Entity = None
    reason: Annotated[
        str | None, msgspec.Meta(description="Why it is kept; why() tells it later")
    ] = None


class Recall(msgspec.Struct):
    query: Annotated[str, msgspec.Meta(description="Any text, in any language")]
    limit: Annotated[
        int, msgspec.Meta(ge=1, le=100, description="The most memories, and the most entities")
    ] = 10
    entity: Annotated[
        str | None, msgspec.Meta(description="Only what is about this entity; by default all")
    ] = None
    since: Annotated[
        str | None, msgspec.Meta(description="Only what was told or changed since, ISO 8601")
    ] = None


class Timeline(msgspec.Struct):
    entity: Annotated[str, msgspec.Meta(description="An entity, or user")]
    begin: _Time = msgspec.field(name="from", default=None)
    end: _Time = msgspec.field(name="to", default=None)


class Update(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(description="The id of a memory, from recall")]
    content: Annotated[str, msgspec.Meta(description="Its new text")]
    reason: _Reason


class Why(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(description="The id of a memory, also of a deleted one")]


class Forget(msgspec.Struct):
    reason: Annotated[
        str, msgspec.Meta(min_length=1, description="Why, one sentence; the receipt keeps it")
    ]
    ids: Annotated[list[str] | None, msgspec.Meta(description="Ids of memories, from recall")] = (
        None
    )
    entity: Annotated[
        str | None,
        msgspec.Meta(
            description="In place of ids: everything about it, in memory and in the graph"
        ),
    ] = None


class Stats(msgspec.Struct):
    pass


class Remembered(msgspec.Struct):
    id: str
    layer: str
    action: str
    """insert; ignore when the same text is there already."""
    expires: str | None


class Recalled(msgspec.Struct):
    id: str
    layer: str
    entity: str
    text: str
    category: str | None
    score: float
    told: str | None
    changed: str | None
    expires: str | None


class RecalledEntity(msgspec.Struct):
    name: str
    entity_type: str = msgspec.field(name="entityType")
    observations: list[str]
    score: float
    changed: str | None


class RecallResult(msgspec.Struct):
    memories: list[Recalled]
    entities: list[RecalledEntity]


class Moment(msgspec.Struct):
    time: str
    kind: str
    id: str
    text: str
    end: str | None


class TimelineResult(msgspec.Struct):
    entity: str
    moments: list[Moment]


class Updated(msgspec.Struct):
    id: str
    layer: str
    action: str


class Change(msgspec.Struct):
    time: str | None
    action: str
    reason: str | None
    before: str | None
    after: str | None


class WhyResult(msgspec.Struct):
    id: str
    changes: list[Change]


class Receipt(msgspec.Struct):
    reason: str
    memories: int
    entities: int
    relations: int
    unknown: list[str]
    lsn: int
    backups: list[str]
    """Backups taken before, which may still hold it."""


class StatsResult(msgspec.Struct):
    namespace: str | None
    read_only: bool
    entities: int
    relations: int
    profile: int
    event: int
    log: int
    bytes: int
    lsn: int
    version: str
