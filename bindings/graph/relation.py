"""A relation: the document of a fact between two entities, and what somebody tells of one.

    source -relation_type-> target, fact, properties,
    valid_from, valid_to, told_at, ended_at, ended_by, former_ends, told_by, provenance

Invariants:
- `fact` is the text that is searched: the caller's, or the ends and the type as words.
- What another program put is read with defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, final

from amberdb import Document
from amberdb._shared.checks import check_map, check_name, check_optional_name, check_optional_text
from amberdb.graph import provenance
from amberdb.graph.validity import check_span, ends_of, with_ends

FIELDS: Final = (
    "id",
    "source",
    "relation_type",
    "target",
    "fact",
    "properties",
    "valid_from",
    "valid_to",
    "told_at",
    "ended_at",
    "ended_by",
    "former_ends",
    "told_by",
    "provenance",
)
"""The fields of a relation that are returned: all but its vector."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What somebody tells of a relation."""

    source: str
    relation_type: str
    target: str
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    fact: str | None = None
    told_by: str | None = None
    vector: Any = None

    def check(self) -> None:
        """Raises InvalidDocumentError."""
        check_name("relation_type", self.relation_type)
        check_optional_text("fact", self.fact)
        check_optional_name("told_by", self.told_by)
        check_map("properties", self.properties)
        check_span(self.valid_from, self.valid_to)

    @property
    def text(self) -> str:
        """The text to search."""
        return self.fact or in_words(self.source, self.relation_type, self.target)


def complete(relation: Mapping[str, Any]) -> Document:
    """The document with the fields that another program left out, and without its vector."""
    whole: Document = {name: value for name, value in relation.items() if name != "embedding"}
    for name in FIELDS:
        whole.setdefault(name, None)
    whole["properties"] = dict(whole["properties"] or {})
    whole["told_by"] = whole["told_by"] or [None]
    for name in ("former_ends", "provenance"):
        whole[name] = whole[name] or []
    whole["fact"] = whole["fact"] or words_of(whole)
    return whole


def in_words(source: str, relation_type: str, target: str) -> str:
    """The relation as a text that can be searched."""
    return f"{source} {relation_type.replace('_', ' ')} {target}"


def words_of(relation: Mapping[str, Any]) -> str:
    return in_words(relation["source"], relation["relation_type"], relation["target"])


def with_told(relation: Document, told: Told, now: datetime, *, is_new: bool) -> Document:
    """The relation with what is told of it."""
    new = {**relation, "properties": {**relation["properties"], **told.properties}}
    known = [relation["fact"]]
    if told.fact is not None:
        new["fact"] = told.fact
    end_known = (relation["valid_to"], relation["ended_by"]) == (told.valid_to, told.told_by)
    if told.valid_to is not None and (is_new or not end_known):
        check_span(relation["valid_from"], told.valid_to)
        ends = [] if is_new else ends_of(relation)
        end = {"valid_to": told.valid_to, "ended_at": now, "ended_by": told.told_by}
        new = with_ends(new, [*ends, end])
    said = [] if told.fact is None else [told.fact]
    return provenance.told(new, told.told_by, said, told.properties, known=[] if is_new else known)


def united(into: Document, one: Document) -> Document:
    """A relation with what is known of another one that says the same. Of a property that both
    have, the value is that of `into`."""
    told = [each["told_at"] for each in (into, one) if each["told_at"] is not None]
    return {
        **with_ends(into, ends_of(into) or ends_of(one)),
        "properties": {**one["properties"], **into["properties"]},
        "told_at": min(told, default=None),
        **provenance.joined(into, one),
    }


def of_version_2(relation: Document) -> Document:
    """A relation of before facts had a text, a teller and the time of telling."""
    return {
        **{name: value for name, value in relation.items() if name != "created_at"},
        "fact": words_of(relation),
        "told_at": relation.get("created_at"),
        "ended_at": None,
        "ended_by": None,
        "former_ends": [],
        "told_by": [None],
        "provenance": [],
    }
