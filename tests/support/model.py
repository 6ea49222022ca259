"""A database as a dictionary: what AmberDB should answer, computed the long way.

Invariants:
- Documents in here are never changed, only replaced; so a copy of the model is a snapshot.
- Every operation either returns what the database should return, or raises the error class that
  the database should raise, and then has changed nothing.
"""

# What a document holds has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from amberdb import (
    REMOVE,
    ConflictError,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Unique,
)
from support import reference
from support.reference import GONE, Doc, rank

NEVER = 1 << 70
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

Spec = Ordered | Unique


@dataclass(frozen=True)
class Held:
    """One stored document."""

    doc: Doc
    rowid: int
    expires_us: int
    version: int
    """0: of its last write or of its migration, which may come any time."""


@dataclass
class ModelCollection:
    """One collection; `expires_at` and `specs` as declared."""

    expires_at: str | None = None
    specs: list[Spec] = field(default_factory=list[Spec])
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    next_rowid: int = 1
    version: int = 1
    touched: dict[str, Doc | None] = field(default_factory=dict[str, Doc | None])
    """What the commit in the making has done: the document, or None for a removal."""

    def copy(self) -> "ModelCollection":
        return replace(self, held=dict(self.held), specs=list(self.specs), touched={})

    # -- reading -----------------------------------------------------------------------------

    def live(self, now_us: int) -> dict[str, Held]:
        return {id: held for id, held in self.held.items() if held.expires_us > now_us}

    def get(self, id: str, now_us: int) -> Doc | None:
        held = self.held.get(id)
        return held.doc if held is not None and held.expires_us > now_us else None

    def find(
        self, where: Mapping[str, Any] | None, order_by: list[str] | None, now_us: int
    ) -> list[Doc]:
        found = [
            (held.rowid, held.doc)
            for held in self.live(now_us).values()
            if reference.matches(held.doc, where)
        ]
        return reference.ordered(found, order_by or [])

    def upgraded(self, upgrade: Callable[[Doc], Doc]) -> "ModelCollection":
        """At the next version. Raises what its indexes refuse."""
        model = replace(self.copy(), version=self.version + 1)
        for id, held in self.held.items():
            model.held[id] = replace(held, doc=upgrade(deepcopy(held.doc)), version=0)
            for spec in self.specs:
                index_keys(spec, model.held[id].doc)
        for spec in self.specs:
            if isinstance(spec, Unique):
                model.check_spec(spec, set(model.held), -NEVER)
        return model

    # -- writing -----------------------------------------------------------------------------

    def put(self, doc: Doc, now_us: int, version: int, *, insert: bool = False) -> str:
        id: str = doc["id"]
        old = self.held.get(id)
        if old is not None and old.expires_us <= now_us:
            old = None
        if insert and old is not None:
            raise DuplicateKeyError(id)
        expires_us = self._expires_us(doc)
        for spec in self.specs:
            index_keys(spec, doc)
        if old is None:
            rowid, self.next_rowid = self.next_rowid, self.next_rowid + 1
        else:
            rowid = old.rowid
        self.held[id] = Held(deepcopy(doc), rowid, expires_us, version)
        self.touched[id] = self.held[id].doc
        return id

    def update(
        self, id: str, patch: Doc, if_version: int | None, now_us: int, version: int
    ) -> None:
        old = self.held.get(id)
        if old is None or old.expires_us <= now_us:
            raise MissingKeyError(id)
        if if_version is not None and if_version != old.version:
            raise ConflictError(id)
        self.put(merged(old.doc, patch), now_us, version)

    def delete(self, id: str, now_us: int) -> bool:
        was_live = self.get(id, now_us) is not None
        if self.held.pop(id, None) is not None:
            self.touched[id] = None
        return was_live

    def delete_many(self, where: Mapping[str, Any], now_us: int) -> int:
        ids = [doc["id"] for doc in self.find(where, None, now_us)]
        for id in ids:
            self.delete(id, now_us)
        return len(ids)

    def check_unique(self, now_us: int) -> None:
        """Of what was touched, against all that is live. Raises DuplicateKeyError."""
        for spec in self.specs:
            if isinstance(spec, Unique):
                self.check_spec(spec, set(self.touched), now_us)

    def check_spec(self, spec: Unique, ids: set[str], now_us: int) -> None:
        owners: dict[Any, set[str]] = {}
        for id, held in self.live(now_us).items():
            for key in index_keys(spec, held.doc):
                owners.setdefault(key, set()).add(id)
        if any(len(who) > 1 and who & ids for who in owners.values()):
            raise DuplicateKeyError(spec.name)

    def _expires_us(self, doc: Doc) -> int:
        value = doc.get(self.expires_at) if self.expires_at else None
        if value is None:
            return NEVER
        if isinstance(value, datetime):
            return (value - _EPOCH) // timedelta(microseconds=1)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidDocumentError("expires_at")
        return int(value * 1_000_000)


def merged(doc: Doc, patch: Mapping[str, Any]) -> Doc:
    """update() as documented: maps recursively, REMOVE takes out, None stores None."""
    result = dict(doc)
    for name, value in patch.items():
        if value is REMOVE:
            result.pop(name, None)
        elif type(value) is dict:
            old = result.get(name)
            result[name] = merged(old if type(old) is dict else {}, value)
        else:
            result[name] = value
    return result


def index_keys(spec: Spec, doc: Doc) -> list[tuple[Any, ...]]:
    """The keys that must not be another's, for a Unique index. Raises InvalidDocumentError."""
    values = [reference.field(doc, path) for path in spec.paths]
    values = [None if value is GONE else value for value in values]
    if spec.sparse and any(value is None for value in values):
        return []
    if sum(isinstance(value, list) for value in values) > 1:
        raise InvalidDocumentError("two lists")
    keys: list[tuple[Any, ...]] = [()]
    for value in values:
        elements: list[Any] = (value or [None]) if type(value) is list else [value]
        if isinstance(spec, Unique) and any(
            isinstance(each, dict) or (elements is value and isinstance(each, list))
            for each in elements
        ):
            raise InvalidDocumentError("no key")
        keys = [
            (*key, rank(each))
            for key in keys
            for each in elements
            if not (spec.sparse and each is None)
        ]
    return keys
