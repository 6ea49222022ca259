"""Ranking: how the lists of several indexes become one, and what moves a document in it.

    lists -> fused -> neighbors (neighbors.py) -> decayed by age -> diverse

Invariants:
- Equal scores are ordered by rowid, the newer first.
- A step reads the documents that it is given, and no other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, final

from amberdb._errors import QueryError
from amberdb._public import public
from amberdb._time import microseconds
from amberdb._types import Document
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.searcher import Found, Ranked
from amberdb.index.paths import Path, path_problem
from amberdb.index.vector.vector import Vector

WINDOW_MAX: Final = 10
"""The most neighbors on each side of a document."""


@public
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How the ranked lists of several indexes become one, of the first `depth` rows of each, or the
    first `limit` where the search asks for more.

    method  "convex": the weighted mean of scores from 0 to 1: of a text, BM25 divided by the most
            that a document could get; of a vector, the score within the range of its metric.
            "reciprocal_rank": the sum of weight / (k + rank), rank from 1
    k       of reciprocal ranks

    Raises QueryError.
    """

    method: Literal["convex", "reciprocal_rank"] = "convex"
    k: float = 10.0
    depth: int = 20
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """By the index's name or by its field; 1.0 for an index that is not named. At least 0."""

    def __post_init__(self) -> None:
        if self.method not in ("convex", "reciprocal_rank"):
            raise QueryError(
                f'the method of a fusion is "convex" or "reciprocal_rank", not {self.method!r}'
            )
        for name, weight in self.weights.items():
            if not weight >= 0.0:
                raise QueryError(f"the weight of {name!r} must be at least 0, not {weight!r}")

    def weight(self, index: RowIndex) -> float:
        """The weight of the list of an index."""
        names = (index.spec.name, *index.spec.fields)
        return next((self.weights[name] for name in names if name in self.weights), 1.0)


@public
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recency:
    """Scores decay with age: they halve every `half_life`, by a datetime field of the document.

    A document without the field counts as one `half_life` old.
    """

    field: str
    half_life: timedelta


@public
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbors:
    """A document is ranked with the documents beside it, as a turn is understood by the turns
    around it: each of the best hits adds decay ** k of its score to the documents k places before
    and after it in its group, for k up to `window`.

        Neighbors(group="session_id", order="created_at")

    group   the field, or fields, whose values the neighbors share
    order   the field that orders a group. Ordered(group, order) has to be declared
    window  the neighbors on each side, 1 to 10
    decay   0.0 to 1.0

    Raises QueryError.
    """

    group: str | Sequence[str]
    order: str
    window: int = 2
    decay: float = 0.5

    def __post_init__(self) -> None:
        for path in self.paths:
            if problem := path_problem(path):
                raise QueryError(f"group and order of neighbors name fields: {problem}")
        if type(self.window) is not int or not 1 <= self.window <= WINDOW_MAX:
            raise QueryError(f"window must be an int from 1 to {WINDOW_MAX}, not {self.window!r}")
        if not 0.0 <= self.decay <= 1.0:
            raise QueryError(f"decay must be from 0 to 1, not {self.decay!r}")

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields of the group, and the order."""
        group = (self.group,) if isinstance(self.group, str) else tuple(self.group)
        return (*group, self.order)

    def are_ordered_by(self, paths: Sequence[str]) -> bool:
        """Whether an index over these fields has the documents of each group in order."""
        wanted = self.paths
        return tuple(paths[: len(wanted)]) == wanted


def sorted_rows(scores: Iterable[tuple[int, float]]) -> Ranked:
    """Best first; of equal scores the newer row first."""
    ranked = sorted([(score, rowid) for rowid, score in scores], reverse=True)
    return [(rowid, score) for score, rowid in ranked]


def convex(found: Mapping[RowIndex, Found], fusion: Fusion) -> Ranked:
    """The rows of all lists by the weighted mean of their scores. A row without a text score has
    none of the words; one without a vector counts as unrelated to the query."""
    from amberdb.index.fusion import combine  # imports numpy, which only a search needs
    from amberdb.index.vector.distance import similarity

    scores: list[dict[int, float]] = []
    missing: list[float] = []
    for index, (ranked, _, highest) in found.items():
        if index.is_text:
            scores.append({rowid: score / highest for rowid, score in ranked})
            missing.append(0.0)
        else:
            metric = index.vector.metric
            scores.append({rowid: similarity(score, metric) for rowid, score in ranked})
            missing.append(0.0 if metric == "l2" else similarity(0.0, metric))
    return sorted_rows(combine(scores, missing, [fusion.weight(index) for index in found]))


def by_rank(found: Mapping[RowIndex, Found], fusion: Fusion) -> Ranked:
    """The rows of all lists by reciprocal rank (Cormack, Clarke and Buettcher 2009)."""
    from amberdb.index.fusion import fuse

    rankings = [[rowid for rowid, _ in each.ranked] for each in found.values()]
    rowids, scores = fuse(rankings, [fusion.weight(index) for index in found], fusion.k)
    return list(zip(rowids.tolist(), scores.tolist(), strict=True))


def decayed(
    ranked: Ranked, documents: Mapping[int, Document], recency: Recency, now_us: int
) -> Ranked:
    """Scores that halve with every half-life of the document's age, ranked again."""
    import numpy as np

    from amberdb.index.fusion import decay

    half_life_s = recency.half_life.total_seconds()
    find = Path.of(recency.field).find

    def age_s(document: Document) -> float:
        time = find(document)
        return (now_us - microseconds(time)) / 1e6 if type(time) is datetime else half_life_s

    scores = np.array([score for _, score in ranked], np.float64)
    ages_s = np.array([age_s(documents[rowid]) for rowid, _ in ranked], np.float64)
    values = decay(scores, ages_s, half_life_s).tolist()
    return sorted_rows(zip((rowid for rowid, _ in ranked), values, strict=True))


def diverse(
    ranked: Ranked,
    documents: Mapping[int, Document],
    spec: Vector,
    limit: int,
    diversity: float,
) -> Ranked:
    """The first `limit` rows by maximal marginal relevance (Carbonell and Goldstein 1998) over the
    documents' vectors."""
    import numpy as np

    from amberdb.index.fusion import mmr

    vectors = [spec.centroid(documents[rowid]) for rowid, _ in ranked]
    zero = np.zeros(spec.dim, np.float32)
    rows = np.array([zero if each is None else each for each in vectors], np.float32)
    rows = rows.reshape(-1, spec.dim)  # also without any row
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    scores = np.array([score for _, score in ranked])
    choices: list[int] = mmr(scores, rows, limit, diversity).tolist()
    return [ranked[choice] for choice in choices]
