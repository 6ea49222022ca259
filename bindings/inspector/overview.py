"""The collections of a database: counts, sizes, indexes.

Invariants:
- Nothing is counted by a scan: counts are the counters of the engine, sizes those of LMDB's trees.
- What a place does not know, as a server the size of a collection, is None.
"""

from dataclasses import dataclass
from typing import Any, Final, final

from amberdb import CollectionDef, Database, IndexSpec, Stats, Text, Vector

_QUEUES: Final = "embedding"
"""What the kinds of indexes begin with that hold documents which wait for a vector."""


@final
@dataclass(frozen=True, slots=True)
class IndexSummary:
    """An index, as it was declared."""

    name: str
    kind: str
    """ "ordered", "unique", "text" or "vector"."""
    fields: tuple[str, ...]
    state: str
    """ "ready", "building", "rebuilding" or "migrating"."""
    details: dict[str, Any]
    """What else the declaration says: `dim`, `metric`, `language`, `sparse` and so on."""


@final
@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """A collection with its figures."""

    name: str
    documents: int
    size_bytes: int | None
    """Pages of data.mdb, as of the last checkpoint."""
    version: int
    expires_at: str | None
    owner: str | None
    required: tuple[str, ...]
    indexes: tuple[IndexSummary, ...]

    @property
    def text_indexes(self) -> list[IndexSummary]:
        return [index for index in self.indexes if index.kind == "text"]

    @property
    def vector_indexes(self) -> list[IndexSummary]:
        return [index for index in self.indexes if index.kind == "vector"]

    @property
    def fields(self) -> list[str]:
        """The fields that the declaration names, each once: what a filter is likely to use."""
        names = ["id", *self.required, *([self.expires_at] if self.expires_at else [])]
        for index in self.indexes:
            if index.kind != "vector":
                names += [field.removeprefix("-") for field in index.fields]
        return list(dict.fromkeys(names))


def read_collections(db: Database, stats: Stats | None = None) -> list[CollectionSummary]:
    """All collections, by name."""
    facts = (stats or db.stats()).collections
    return [_summary(db.definition(name), facts[name]) for name in sorted(facts)]


def read_collection(db: Database, name: str) -> CollectionSummary:
    """One collection. Raises CollectionMissingError."""
    definition = db.definition(name)
    return _summary(definition, db.stats().collections.get(name, {}))


def _summary(definition: CollectionDef, facts: dict[str, Any]) -> CollectionSummary:
    states: dict[str, str] = facts.get("indexes", {})
    return CollectionSummary(
        name=definition.name,
        documents=facts.get("documents", 0),
        size_bytes=facts.get("bytes"),
        version=definition.version,
        expires_at=definition.expires_at,
        owner=definition.owner,
        required=tuple(definition.required),
        indexes=tuple(
            _index(spec, states.get(spec.name, "ready"))
            for spec in definition.specs
            if not spec.kind.startswith(_QUEUES)
        ),
    )


def _index(spec: IndexSpec, state: str) -> IndexSummary:
    details: dict[str, Any] = {}
    if isinstance(spec, Vector):
        details = {"dim": spec.dim, "metric": spec.metric}
        details |= {"source": spec.source} if spec.source else {}
        details |= {"multi": True, "mean_of": spec.mean_of} if spec.multi else {}
    elif isinstance(spec, Text):
        details = {"language": spec.language}
        details |= {"segmenter": spec.segmenter} if spec.segmenter else {}
    elif getattr(spec, "sparse", False):
        details = {"sparse": True}
    return IndexSummary(spec.name, spec.kind, tuple(spec.fields), state, details)
