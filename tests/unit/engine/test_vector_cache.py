"""Graphs and cache files change how long a search takes, and what it finds only within recall."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb._fs import OsFileSystem
from amberdb._types import Lsn
from amberdb.engine.jobs import Jobs
from amberdb.engine.search.vector import cache as vector_cache
from amberdb.engine.search.vector import file as vector_file
from amberdb.engine.search.vector import index as vector_index
from amberdb.engine.search.vector.cache import Built, VectorCache
from amberdb.engine.search.vector.file import VectorFile
from amberdb.engine.search.vector.index import VectorIndex
from amberdb.engine.storage.cache_file import HEADER_SIZE, CacheFolder
from amberdb.index.vector import hnsw
from amberdb.index.vector.codes import CodedQuery, CodesView
from amberdb.index.vector.coercion import METRICS, Metric
from amberdb.index.vector.distance import Scores
from amberdb.index.vector.vector import Vector
from support.beside import beside
from support.cache_files import Parts, forge
from support.faulty_fs import FaultyFileSystem
from support.vectors import Documents, filtered, pairs

DIM = 24
ID = b"0123456789abcdef"

needs_hnsw = pytest.mark.skipif(hnsw.library() is None, reason="needs the extra hnsw")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows do what ten thousands do."""
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 300)
    monkeypatch.setattr(vector_index, "FLAT_ROWS", 300)
    monkeypatch.setattr(vector_index, "VISIT_ROWS", 1)
    monkeypatch.setattr(vector_cache, "GRAPH_ROWS", 300)
    monkeypatch.setattr(vector_cache, "FRESH_ROWS", 50)
    monkeypatch.setattr(vector_cache, "DEAD_ROWS", 50)
    monkeypatch.setattr(vector_file, "UNSAVED_ROWS", 50)


class Harness:
    """A searcher over documents, with a cache folder, opened as often as a test likes."""

    def __init__(
        self, path: Path, documents: Documents, metric: Metric = "cosine", keyspace: int = 7
    ) -> None:
        path.mkdir(exist_ok=True)
        self.keyspace = keyspace
        self.path = path
        self.documents = documents
        self.metric: Metric = metric
        self.fs = FaultyFileSystem()
        self.open()

    def open(self, **changes: Any) -> VectorIndex:
        dim = self.documents.vectors.shape[1]
        if self.documents.several > 1:
            changes = {"multi": True, "mean_of": self.documents.mean_of, **changes}
        spec = Vector("v", dim=dim, metric=self.metric, **changes)
        last = Lsn(len(self.documents.alive))
        folder = CacheFolder(self.fs, str(self.path), ID, last, {self.keyspace})
        self.builder = Jobs(background=False)
        self.vector_file = VectorFile(spec, self.keyspace, folder)
        self.searcher = VectorIndex(
            VectorCache(spec, source=self.documents, file=self.vector_file, builder=self.builder)
        )
        return self.searcher

    def build(self) -> None:
        self.searcher.cache.build(lambda: False)

    def search(
        self,
        query: NDArray[np.float32],
        limit: int = 10,
        alive: NDArray[np.bool_] | None = None,
        prefilter: NDArray[np.int64] | None = None,
    ) -> tuple[list[tuple[int, float]], dict[str, object]]:
        alive = self.documents.alive if alive is None else alive
        among = None if prefilter is None else filtered(prefilter)
        found = self.searcher.search(query, limit, alive, self.documents.fetch, among)
        return pairs(*found), found[2]

    def recall(self, queries: NDArray[np.float32]) -> float:
        """Of the 10 nearest, by the graph."""
        hits = 0
        for query in queries:
            found, how = self.search(query)
            assert how["search"] == "graph"
            assert len(found) == 10
            hits += len(set(found) & set(self.documents.naive(query, 10, self.metric)))
        return hits / (10 * len(queries))

    @property
    def file(self) -> Path:
        return self.path / "cache" / f"{self.keyspace}.cache"


def _assert_exact(harness: Harness, queries: NDArray[np.float32]) -> None:
    for query in queries:
        assert harness.search(query)[0] == harness.documents.naive(query, 10, harness.metric)


@needs_hnsw
def test_what_fell_due_during_the_pause_is_built_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)

    def monotonic() -> float:
        now: float = clock.now
        return now

    def sleep(seconds: float) -> None:
        clock.now += seconds

    clock.monotonic = monotonic
    clock.sleep = sleep
    monkeypatch.setattr(vector_cache, "time", clock)
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    documents.put(200)
    query = documents.drawn(1)[0]
    for now, lag in ((0.5, 200), (60.0, 0)):
        clock.now = now
        harness.search(query)
        harness.builder.run()
        assert harness.searcher.stats()["lag"] == lag


@pytest.mark.slow
@needs_hnsw
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("centres", [0, 40])
def test_recall_of_the_graph(tmp_path: Path, metric: Metric, centres: int) -> None:
    documents = Documents(4000, dim=DIM, centres=centres)
    harness = Harness(tmp_path, documents, metric)
    harness.build()
    assert harness.recall(documents.drawn(50)) >= 0.98


@pytest.mark.slow
@needs_hnsw
@pytest.mark.parametrize("churn", [0.5, 2.0])
def test_recall_after_churn_is_that_of_a_fresh_graph(tmp_path: Path, churn: float) -> None:
    documents = Documents(2000, dim=DIM, centres=30)
    harness = Harness(tmp_path / "churned", documents)
    harness.build()
    for _ in range(round(churn * 20)):
        live = np.flatnonzero(documents.alive)
        documents.delete(*documents.rng.choice(live, 100, replace=False).tolist())
        documents.put(100)
        harness.build()
    stats = harness.searcher.stats()
    assert stats["rows"] <= 2000 * 1.3
    assert stats["lag"] <= 0.06 * stats["rows"]
    queries = documents.drawn(50)
    fresh = Harness(tmp_path / "fresh", documents)
    fresh.build()
    assert harness.recall(queries) >= fresh.recall(queries) - 0.01


@needs_hnsw
def test_fresh_dead_and_unborn_rows_beside_a_graph(tmp_path: Path) -> None:
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    old = documents.alive
    nearest = [rowid for rowid, _ in documents.naive(documents.vectors[5], 40, "cosine")]
    documents.delete(*nearest[:30])
    documents.put(20)
    documents.vectors[-3:] = documents.vectors[5]
    found, how = harness.search(documents.vectors[5])
    assert [rowid for rowid, _ in found[:3]] == [1020, 1019, 1018]
    assert (how["search"], how["fresh"]) == ("graph", 20)
    assert found == documents.naive(documents.vectors[5], 10, "cosine")
    before, how = harness.search(documents.vectors[5], alive=old)
    assert before == documents.naive(documents.vectors[5], 10, "cosine", old)
    assert how["fresh"] == 0


@needs_hnsw
@pytest.mark.parametrize("metric", METRICS)
def test_many_fresh_rows_beside_a_graph_are_found_by_codes(
    tmp_path: Path, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(1000, dim=128, centres=40)
    harness = Harness(tmp_path, documents, metric)
    harness.build()
    documents.put(4000)
    documents.delete(*range(2000, 2500), *range(7, 60))
    starts: list[int] = []
    bounds = CodesView.bounds

    def noted(self: CodesView, query: CodedQuery, start: int = 0) -> Scores:
        starts.append(start)
        return bounds(self, query, start)

    monkeypatch.setattr(CodesView, "bounds", noted)
    hits = 0
    for query in documents.drawn(20):
        found, how = harness.search(query)
        assert (how["search"], how["fresh"]) == ("graph", 3500)
        hits += len(set(found) & set(documents.naive(query, 10, metric)))
    assert set(starts) == {1000}
    assert hits >= 198


@needs_hnsw
def test_as_many_as_there_are_however_few_of_the_nearest_live(tmp_path: Path) -> None:
    documents = Documents(1500, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    query = documents.vectors[1]
    ranked = [rowid for rowid, _ in documents.naive(query, 1500, "cosine")]
    documents.delete(*ranked[:1100])  # all that is near
    found, how = harness.search(query)
    assert found == documents.naive(query, 10, "cosine")
    assert how["widened"]
    assert len(harness.search(query, limit=2000)[0]) == 400
    far = np.array(ranked[-350:])
    found, how = harness.search(query, prefilter=far)
    assert found == documents.naive(query, 10, "cosine", prefilter=far)


def test_a_view_older_than_the_caches(tmp_path: Path) -> None:
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    old = documents.alive
    documents.delete(*range(1, 500))
    harness.build()  # does not know them yet
    documents.put(30)
    query = documents.vectors[3]
    found, how = harness.search(query, alive=old)
    assert "fetched" not in how
    assert found == documents.naive(query, 10, "cosine", old)
    documents.delete(*range(500, 800))
    harness.build()
    assert harness.searcher.stats()["rows"] == 231
    for _ in range(2):
        found, how = harness.search(query, alive=old)
        assert how["fetched"] == 799
        assert found == documents.naive(query, 10, "cosine", old)
    assert harness.searcher.stats()["rows"] == 231


def test_rows_added_while_the_dead_are_dropped_stay(tmp_path: Path) -> None:
    documents = Documents(900, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    documents.delete(*range(1, 400))
    asked = 0

    def meanwhile() -> bool:
        nonlocal asked
        asked += 1
        if asked == 4:
            documents.put(5)
            harness.search(documents.vectors[-1])
        return False

    harness.searcher.cache.build(meanwhile)
    assert harness.searcher.stats()["rows"] == 506
    fetched = len(documents.fetched)
    assert harness.search(documents.vectors[-1])[0][0][0] == 905
    assert len(documents.fetched) == fetched


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_build_that_is_stopped_anywhere_loses_nothing(tmp_path: Path, calls: int) -> None:
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    left = calls

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left <= 0

    harness.searcher.cache.build(stop)
    documents.delete(*range(1, 300))
    left = calls
    harness.searcher.cache.build(stop)
    _assert_exact(harness, documents.vectors[300:320])
    harness.searcher.cache.save()
    harness.open()
    _assert_exact(harness, documents.vectors[300:320])


@needs_hnsw
def test_reopening_reads_the_file_and_no_document(tmp_path: Path) -> None:
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    documents.put(7)
    documents.fetched.clear()
    harness.open()
    query = documents.vectors[9]
    found, how = harness.search(query)
    assert (found, how["search"]) == (documents.naive(query, 10, "cosine"), "exact")
    assert documents.fetched == list(range(1001, 1008))
    harness.builder.run()
    found, how = harness.search(query)
    assert (found, how["search"]) == (documents.naive(query, 10, "cosine"), "graph")
    assert len(documents.fetched) == 7


def test_a_file_is_not_written_for_a_few_rows(tmp_path: Path) -> None:
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    before = harness.file.stat().st_mtime_ns, harness.file.read_bytes()
    documents.put(40)
    harness.search(documents.vectors[1])
    harness.build()
    harness.searcher.cache.save()
    assert (harness.file.stat().st_mtime_ns, harness.file.read_bytes()) == before
    documents.put(40)
    harness.search(documents.vectors[1])
    harness.searcher.cache.save()
    assert harness.file.read_bytes() != before[1]


@pytest.mark.slow
def test_a_flipped_byte_of_the_file_changes_no_answer(tmp_path: Path) -> None:
    documents = Documents(310, dim=2)
    harness = Harness(tmp_path, documents)
    harness.open(m=2)
    harness.build()
    whole = harness.file.read_bytes()
    query = documents.drawn(1)[0]
    expected = documents.naive(query, 10, "cosine")
    undetected = 0
    places = range(0, len(whole), 29)  # test_cachefile.py flips every byte
    for at in (*range(HEADER_SIZE), *places):
        harness.file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        harness.open(m=2)
        assert harness.search(query)[0] == expected, at
        harness.searcher.cache._load_graph()  # pyright: ignore[reportPrivateUsage]
        assert harness.search(query)[0] == expected, at
        undetected += harness.file.exists()
    assert undetected <= 6 * 64 // 29, "more than what is between sections"


@pytest.mark.parametrize("change", [{"m": 8}, {"ef_construction": 64}])
def test_a_file_of_another_configuration_is_dropped(tmp_path: Path, change: dict[str, Any]) -> None:
    documents = Documents(400, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    harness.open(**change)
    _assert_exact(harness, documents.drawn(3))
    assert not harness.file.exists()


def test_a_file_that_is_cut_or_another_ones_is_dropped(tmp_path: Path) -> None:
    documents = Documents(400, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    whole = harness.file.read_bytes()
    other = Documents(400, seed=9, dim=DIM)
    others = Harness(tmp_path / "other", other, keyspace=8)
    others.build()
    swapped = (tmp_path / "other" / "cache" / "8.cache").read_bytes()
    for data in (b"", whole[:100], whole[:-1], whole + b"\0", swapped):
        harness.file.write_bytes(data)
        harness.open()
        _assert_exact(harness, documents.drawn(3))
        assert not harness.file.exists()


def test_rows_that_were_lost_are_not_in_a_file(tmp_path: Path) -> None:
    """A file above the recovered Lsn goes at open; the same rowids then have other content."""
    documents = Documents(400, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    assert harness.file.exists()
    documents.vectors = documents.vectors[:391]
    documents.rows = documents.rows[:391]
    documents.alive = documents.alive[:391]
    harness.open()
    documents.put(30)
    _assert_exact(harness, documents.vectors[385:])


def test_the_lsn_of_a_file_is_not_older_than_its_rows(tmp_path: Path) -> None:
    """Rows that come between the look at the rows and the sync are not in it."""
    documents = Documents(400, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.search(documents.vectors[1])
    sync = documents.sync

    def late_sync() -> Lsn:
        lsn = sync()
        documents.put(60)
        harness.search(documents.vectors[1])
        return lsn

    documents.sync = late_sync  # type: ignore[method-assign]
    harness.searcher.cache.save()
    cached = CacheFolder(OsFileSystem(), str(tmp_path), ID, Lsn(401), {7}).read(
        7, harness.vector_file.configuration
    )
    assert cached is not None
    assert np.frombuffer(cached.section(0), np.int64).max() < cached.label.lsn


@pytest.mark.parametrize("kind", ["open", "pwrite", "sync", "rename", "sync_dir"])
def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path, kind: str) -> None:
    documents = Documents(400, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.fs.arm((kind,), 1, lasting=True)
    harness.build()
    assert not harness.file.exists()
    _assert_exact(harness, documents.drawn(3))
    harness.fs.disarm()
    harness.searcher.cache.save()
    assert harness.file.exists()


def test_without_the_library_the_same_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(1000, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    queries = documents.drawn(5)
    found = [harness.search(query)[0] for query in queries]
    monkeypatch.setitem(__import__("sys").modules, "hnswlib", None)
    assert hnsw.library() is None
    harness.open()
    harness.build()
    for query, expected in zip(queries, found, strict=True):
        again, how = harness.search(query)
        assert (again, how["search"]) == (expected, "exact")
    assert harness.searcher.stats()["graph_rows"] == 0


@needs_hnsw
def test_a_graph_that_is_not_of_its_rows_is_told(tmp_path: Path) -> None:
    documents = Documents(400, dim=DIM)
    harness = Harness(tmp_path, documents)
    harness.build()
    cache = harness.searcher.cache
    assert list(cache.problems(documents.alive, documents.fetch)) == []
    right = cache.built
    other = Documents(400, dim=DIM, seed=1)
    strange = Harness(tmp_path / "other", other)
    strange.build()
    graph = strange.searcher.cache.built.graph
    for built, wrong in (
        (Built(right.matrix, graph, right.covered), "vectors"),
        (Built(right.matrix, right.graph, right.covered - 1), "places"),
    ):
        cache._built = built  # pyright: ignore[reportPrivateUsage]
        (problem,) = cache.problems(documents.alive, documents.fetch)
        assert problem == f"the graph in cache/ has wrong {wrong}"


@needs_hnsw
@pytest.mark.parametrize("mean_of", [1, 2])
def test_the_graph_of_rows_with_several_vectors(tmp_path: Path, mean_of: int) -> None:
    documents = Documents(600, dim=DIM, centres=20, several=6, mean_of=mean_of)
    harness = Harness(tmp_path, documents)
    harness.build()
    assert harness.searcher.stats()["graph_rows"] == len(documents.vectors) - 1
    queries = documents.drawn(20)
    assert harness.recall(queries) >= 0.98
    old = documents.alive
    gone = [rowid for rowid, _ in documents.naive(queries[0], 30, "cosine")]
    documents.delete(*gone[:20])
    documents.put(15)
    found, how = harness.search(queries[0])
    assert how["search"] == "graph"
    assert how["fresh"] == np.count_nonzero(documents.rows > 600)
    assert found == documents.naive(queries[0], 10, "cosine")
    found, _ = harness.search(queries[0], alive=old)
    assert found == documents.naive(queries[0], 10, "cosine", old)
    far = np.arange(100, 600)
    found, _ = harness.search(queries[0], prefilter=far)
    assert found == documents.naive(queries[0], 10, "cosine", prefilter=far)
    harness.searcher.cache.save()
    harness.open()
    documents.fetched.clear()
    for search in ("exact", "graph"):
        found, how = harness.search(queries[0])
        assert (found, how["search"]) == (documents.naive(queries[0], 10, "cosine"), search)
        harness.builder.run()
    assert list(harness.searcher.cache.problems(documents.alive, documents.fetch)) == []


@needs_hnsw
@pytest.mark.parametrize("mean_of", [1, 3])
def test_a_graph_that_ends_inside_of_a_row(tmp_path: Path, mean_of: int) -> None:
    """The rest of the row is not in the graph, and its score is that of all its vectors."""
    documents = Documents(400, dim=DIM, several=8, mean_of=mean_of)
    harness = Harness(tmp_path, documents)
    harness.build()
    cache = harness.searcher.cache
    whole = cache.built
    rows = whole.matrix.rows()
    for covered in range(1000, 1009):
        graph = hnsw.Graph(cache.spec, covered)
        graph.add(np.arange(covered), rows.vectors(np.arange(covered)), 1)
        cache._built = Built(whole.matrix, graph, covered)  # pyright: ignore[reportPrivateUsage]
        harness.searcher._visible_rows = None  # pyright: ignore[reportPrivateUsage]
        for place in (covered - 1, covered, covered + 1):
            query = rows.vectors(np.array([place]))[0]
            found, how = harness.search(query)
            assert how["search"] == "graph"
            assert found == documents.naive(query, 10, "cosine")


@needs_hnsw
def test_a_mean_is_that_of_the_best_rows_though_others_are_nearer_once(tmp_path: Path) -> None:
    """Many rows have one vector that is nearer than each of the two of the best row."""
    documents = Documents(0, dim=DIM, several=2, mean_of=2)
    query = documents.drawn(1)[0]
    vectors = [np.stack((query, -query)) + documents.drawn(2) / np.float32(20) for _ in range(600)]
    vectors[77] = query + documents.drawn(2) / np.float32(4)
    documents.vectors = np.concatenate((documents.vectors, *vectors))
    documents.rows = np.concatenate((documents.rows, np.repeat(np.arange(1, 601), 2)))
    documents.alive = np.ones(601, np.bool_)
    documents.alive[0] = False
    harness = Harness(tmp_path, documents)
    harness.build()
    found, _ = harness.search(query, limit=1)
    assert found == documents.naive(query, 1, "cosine")
    assert found[0][0] == 78


@pytest.mark.parametrize("lie", ["twice", "apart"])
def test_a_file_whose_rows_are_not_side_by_side_is_dropped(tmp_path: Path, lie: str) -> None:
    documents = Documents(400, dim=DIM, several=4)
    harness = Harness(tmp_path, documents)
    harness.build()

    def change(parts: Parts) -> None:
        parts.rowids[-1] = 1 if lie == "twice" else parts.rowids[0]

    forge(harness.file, change)
    harness.open()
    _assert_exact(harness, documents.drawn(3))
    assert not harness.file.exists()


def test_check_tells_the_row_whose_vectors_differ(tmp_path: Path) -> None:
    documents = Documents(400, dim=DIM, several=4)
    harness = Harness(tmp_path, documents)
    harness.build()
    cache = harness.searcher.cache
    assert list(cache.problems(documents.alive, documents.fetch)) == []
    rows = documents.rows
    of_last = np.flatnonzero(rows == rows[-1])[-1]
    documents.vectors = np.delete(documents.vectors, of_last, 0)
    documents.rows = np.delete(rows, of_last)
    problems = list(cache.problems(documents.alive, documents.fetch))
    assert problems == ["row 400 has another vector in cache/"]


def test_searching_building_and_closing_at_once(tmp_path: Path) -> None:
    documents = Documents(600, dim=DIM)
    harness = Harness(tmp_path, documents)
    builder = harness.builder = Jobs()
    harness.searcher.cache._builder = builder  # pyright: ignore[reportPrivateUsage]
    searched = threading.Semaphore(0)

    def search() -> None:
        alive, query = documents.alive, documents.vectors[7]
        found, _ = harness.search(query, alive=alive)
        assert len(found) == 10
        assert {rowid for rowid, _ in found} <= set(np.flatnonzero(alive).tolist())
        searched.release()

    with beside(search, search, search):
        for turn in range(12):
            documents.put(150)
            documents.delete(*range(20 + 60 * turn, 80 + 60 * turn))
            builder.want(harness.searcher.cache.build, "a graph")
            for _ in range(10):
                assert searched.acquire(timeout=30)
        builder.close()
    builder.want(harness.searcher.cache.build, "a graph")  # too late: nothing happens
    _assert_exact(harness, documents.vectors[-3:])
    harness.searcher.cache.save()
    harness.open()
    _assert_exact(harness, documents.vectors[-3:])
