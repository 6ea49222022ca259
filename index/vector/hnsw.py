"""The HNSW graph: approximate nearest neighbours by hnswlib, an optional dependency (`hnsw`).

The only module that imports hnswlib, and that handles its limits: it raises when it finds fewer
rows than requested, must not be searched while rows are added, holds its own copy of labels and
vectors, and does not check the arrays that it is loaded from.

Invariants:
- No row is added to a graph that threads search: a copy is made and grows in its place.
- A row is added once and never removed: the caller filters dead rows out.
- A graph is loaded only from arrays whose every count and link was checked to be within bounds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from amberdb._worker import in_parallel
from amberdb.index.vector.distance import Places, Vectors
from amberdb.index.vector.matrix import MatrixView
from amberdb.index.vector.vector import Vector

_COUNT_BYTES: Final = 4
_LABEL_BYTES: Final = 8
_ROW_OVERHEAD_BYTES: Final = 120
"""hnswlib's memory per row besides links, label and vector: lock, level, pointer, label map."""
_PROBLEM_ROWS: Final = 1024
"""The rows whose vectors are compared at once."""
_PART_ROWS: Final = 4
"""Fewer rows for each thread are added in one."""
_TOO_FEW: Final = "Cannot return the results in a contiguous 2D array"


def library() -> Any:
    """hnswlib, or None when it is not installed."""
    try:
        import hnswlib  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except ImportError:
        return None
    return hnswlib  # pyright: ignore[reportUnknownVariableType]


@final
@dataclass(frozen=True, slots=True)
class Links:
    """A graph without its vectors: the part that a cache file stores."""

    places: NDArray[np.int64]
    """By node: the place of its vector in the matrix."""
    levels: NDArray[np.int32]
    """int32[n]: the highest level of each node."""
    base: NDArray[np.uint32]
    """uint32[n, 2 m + 1]: at level 0 the number of neighbours, then their nodes."""
    upper: NDArray[np.uint32]
    """uint32[sum of levels, m + 1]: the same for levels 1 and up, node by node."""

    def problem(self, m: int) -> str | None:
        """The part that is invalid; None when the graph can be searched."""
        count = len(self.places)
        levels = self.levels
        if not count or levels.shape != (count,) or levels.min() < 0:
            return "levels"
        if self.base.shape != (count, 2 * m + 1):
            return "links of level 0"
        if self.upper.shape != (int(levels.sum(dtype=np.int64)), m + 1):
            return "links above level 0"
        if len(np.unique(self.places)) != count or self.places.min() < 0:
            return "places"
        if count > 1 and not self.base[:, 0].all():  # hnswlib links every node
            return "no links for a row"
        if not _is_within(self.base, np.zeros(count, np.int32), levels):
            return "a link of level 0"
        starts = np.cumsum(levels) - levels
        level = np.arange(len(self.upper)) - np.repeat(starts, levels) + 1
        if not _is_within(self.upper, level, levels):
            return "a link above level 0"
        return None


def _is_within(lists: NDArray[np.uint32], level: NDArray[Any], levels: NDArray[np.int32]) -> bool:
    """Whether each list of links fits its row and links only to nodes that reach its level."""
    counts = lists[:, 0]
    room: int = lists.shape[1] - 1
    if counts.max(initial=0) > room:
        return False
    used: NDArray[np.bool_] = np.less(np.arange(room), counts[:, None])
    nodes = lists[:, 1:][used]
    if nodes.max(initial=0) >= len(levels):
        return False
    return bool(np.all(levels[nodes] >= np.repeat(level, counts)))


@final
class Graph:
    """The graph over the prepared vectors (distance.py) of one index. Its labels are their places
    in the matrix."""

    def __init__(self, spec: Vector, capacity: int) -> None:
        """An empty graph; `capacity` grows when rows are added. Requires library()."""
        self.spec = spec
        self._index = _new(spec, capacity)

    @property
    def count(self) -> int:
        return int(self._index.element_count)

    @property
    def size_bytes(self) -> int:
        """The estimated size in memory."""
        row = 4 * self.spec.dim + 8 * self.spec.m + _COUNT_BYTES + _LABEL_BYTES
        return int(self._index.max_elements) * (row + _ROW_OVERHEAD_BYTES)

    def add(self, places: Places, vectors: Vectors, threads: int) -> None:
        """Adds vectors without holding the interpreter, in up to `threads` threads. No other thread
        may search this graph."""
        wanted = self.count + len(places)
        if wanted > self._index.max_elements:
            self._index.resize_index(wanted + wanted // 4)
        # Of threads that hnswlib starts itself, one that cannot be started ends the process.
        parts = 1 if len(places) < _PART_ROWS * threads or not self.count else threads
        in_parallel(
            [
                partial(self._index.add_items, some, of, num_threads=1)
                for some, of in zip(
                    np.array_split(vectors, parts), np.array_split(places, parts), strict=True
                )
            ],
            "amberdb-graph",
        )

    def search(self, query: Vectors, k: int) -> Places:
        """intp[at most k]: places near a prepared query, the nearest first. The nearest of all may
        be missing; a larger k searches more of the graph. Fewer than k are returned when the graph
        reaches fewer."""
        k = min(k, self.count)
        while k > 0:
            try:
                labels, _ = self._index.knn_query(query, k, num_threads=1)
            except RuntimeError as error:
                if not str(error).startswith(_TOO_FEW):
                    raise
                k //= 2
            else:
                places: Places = labels[0].astype(np.intp)
                return places
        return np.empty(0, np.intp)

    def copy(self, capacity: int) -> "Graph":
        """A copy that rows can be added to. Holds the interpreter for about the time of copying
        its bytes twice."""
        return self._of(self.spec, self._parameters(), capacity)

    # -- to and from arrays ------------------------------------------------------------------

    def links(self) -> Links:
        """The links of the graph, copied."""
        return self._links(self._parameters())

    def problem(self, rows: MatrixView, covered: int) -> str | None:
        """The part that differs from a graph of the first `covered` vectors; None when none
        does."""
        parameters = self._parameters()
        links = self._links(parameters)
        problem = links.problem(self.spec.m)
        if problem is not None:
            return problem
        places = links.places
        if covered > rows.count or not np.array_equal(np.sort(places), np.arange(covered)):
            return "places"
        nodes = parameters["data_level0"].view(np.uint8).reshape(len(places), -1)
        for start in range(0, len(places), _PROBLEM_ROWS):
            some = nodes[start : start + _PROBLEM_ROWS, _COUNT_BYTES + 8 * self.spec.m :]
            vectors = rows.vectors(places[start : start + _PROBLEM_ROWS])
            if not np.array_equal(some[:, :-_LABEL_BYTES], vectors.view(np.uint8)):
                return "vectors"
        return None

    def _links(self, parameters: dict[str, Any]) -> Links:
        count = parameters["cur_element_count"]
        m = self.spec.m
        nodes = parameters["data_level0"].view(np.uint8).reshape(count, -1)
        end = _COUNT_BYTES + 8 * m
        return Links(
            np.ascontiguousarray(nodes[:, -_LABEL_BYTES:]).view(np.int64)[:, 0],
            parameters["element_levels"][:count].astype(np.int32),
            np.ascontiguousarray(nodes[:, :end]).view(np.uint32),
            parameters["link_lists"].view(np.uint32).reshape(-1, m + 1).copy(),
        )

    @classmethod
    def of_links(cls, spec: Vector, links: Links, vectors: Vectors) -> "Graph":
        """The graph of links without a problem() and of their vectors, float32[n, dim] by node."""
        count = len(links.places)
        top = int(links.levels.max())
        nodes = np.empty((count, 8 * spec.m + _COUNT_BYTES + 4 * spec.dim + _LABEL_BYTES), np.uint8)
        end = _COUNT_BYTES + 8 * spec.m
        nodes[:, :end] = links.base.view(np.uint8)
        nodes[:, end:-_LABEL_BYTES] = vectors.view(np.uint8)
        nodes[:, -_LABEL_BYTES:] = links.places[:, None].view(np.uint8)
        parameters = {
            **_parameters(_new(spec, count)),
            "cur_element_count": count,
            "ep_added": True,
            "max_level": top,
            "enterpoint_node": int(np.argmax(links.levels == top)),
            "label_lookup_external": links.places.astype(np.uint64),
            "label_lookup_internal": np.arange(count, dtype=np.uint32),
            "element_levels": links.levels,
            "data_level0": nodes.reshape(-1).view(np.int8),
            "link_lists": links.upper.reshape(-1).view(np.int8),
        }
        return cls._of(spec, parameters, count)

    @classmethod
    def _of(cls, spec: Vector, parameters: dict[str, Any], capacity: int) -> "Graph":
        graph = cls.__new__(cls)
        graph.spec = spec
        count = parameters["cur_element_count"]
        graph._index = library().Index(
            {
                **parameters,
                "max_elements": max(capacity, count),
                "element_levels": parameters["element_levels"][:count],
                "seed": 100 + count,  # else the levels of the first rows would be drawn again
            }
        )
        return graph

    def _parameters(self) -> dict[str, Any]:
        return _parameters(self._index)


def _new(spec: Vector, capacity: int) -> Any:
    index = library().Index("l2" if spec.metric == "l2" else "ip", spec.dim)
    index.init_index(max(capacity, 1), M=spec.m, ef_construction=spec.ef_construction)
    index.set_ef(spec.ef)
    return index


def _parameters(index: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = index.__getstate__()[0]
    return parameters
