"""The search rows: deterministic documents, true answers, and every row end to end."""

import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.workloads import texts, vectors

DIM = 8
STATES = ("settled", "killed")
"""Of one process, and of others; test_states.py has the rest."""


@pytest.mark.slow
def test_texts_are_the_same_in_every_run_and_slice() -> None:
    whole = list(texts.documents(0, 2_500))
    assert whole[1_000:2_500] == list(texts.documents(1_000, 1_500))
    assert sum("。" in one["content"] for one in whole) in range(400, 600)  # of a fifth


def test_words_are_as_frequent_as_their_rank_says() -> None:
    vocabulary = texts.vocabulary()
    assert len(set(vocabulary)) == texts.WORDS
    said = [word for one in texts.documents(0, 2_000) for word in one["content"].split()]
    first, tenth = said.count(vocabulary[0]), said.count(vocabulary[9])
    assert first / tenth == pytest.approx(10, rel=0.2)


def test_questions_have_words_of_the_asked_ranks() -> None:
    ranks = {word: rank for rank, word in enumerate(texts.vocabulary())}
    for kind in (texts.COMMON, texts.RARE):
        asked = texts.questions(kind, 20)
        assert asked == texts.questions(kind, 20)
        assert all(ranks[word] in kind for question in asked for word in question.split())


def test_vectors_are_the_same_in_every_run_and_slice_and_no_question_is_one() -> None:
    whole = vectors.vectors(0, 2_500, DIM)
    assert np.array_equal(whole[1_000:], vectors.vectors(1_000, 1_500, DIM))
    batches = list(vectors.batches(0, 2_500, DIM))
    assert [len(batch) for batch in batches] == [1_000, 1_000, 500]
    assert np.array_equal(batches[2][0]["embedding"], whole[2_000])
    for question in vectors.questions(10, DIM):
        assert not np.any(np.all(whole == question, axis=1))


def test_true_answers_are_the_nearest_by_cosine() -> None:
    stored = np.array([[1, 0], [0, 4], [3, 3], [-1, 0]], np.float32)
    question = np.array([2, 1], np.float32)
    assert vectors.nearest([question], stored, 3) == [[2, 0, 1]]
    assert vectors.nearest([question], stored, 3, np.array([3, 1])) == [[1, 3]]


def test_recall_is_the_share_of_the_true_answers() -> None:
    families = pytest.importorskip(
        "bench.rows.families", reason="the peers are in the extra `bench`"
    )
    assert families.recall_of([["a", "b"], ["c"]], [["b", "x"], ["c", "d"]]) == 0.5


def _ways(modules: Iterable[Any]) -> Iterator[str]:
    for operation in (one for module in modules for row in module.ROWS for one in row.operations):
        yield from operation.ways


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_search_row_end_to_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the peers of the extras `bench` and `hnsw`; the others are reported as left out. In a
    child process, which takes the memory of the peers with it."""
    for module in ("msgpack", "rocksdict", "hnswlib"):
        pytest.importorskip(module, reason="the peers are in the extras `bench` and `hnsw`")
    from bench.__main__ import main
    from bench.engines import chroma, lancedb, sqlite_vec, zvec
    from bench.rows import text, vector, vector_state

    absent = (
        lancedb.LanceTextPeer,
        lancedb.LanceVectorPeer,
        sqlite_vec.SqliteVecPeer,
        sqlite_vec.SqliteVecByEntityPeer,
        chroma.ChromaPeer,
        zvec.ZvecPeer,
    )
    for kind in absent:
        monkeypatch.setattr(kind, "packages", ("absent",))
    modules = (text, vector, vector_state)
    names = [row.name for module in modules for row in module.ROWS]
    target = tmp_path / "result.json"
    arguments = ["--quick", "--rounds", "1", "--dir", str(tmp_path), "--json", str(target)]
    child = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(main(["--rows", *names, "--states", *STATES, *arguments]))
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    result = json.loads(target.read_text())
    assert result["failed"] == {}
    assert list(dict.fromkeys(one["row"] for one in result["lines"])) == names
    peers = {"fts5", "lmdb + hnswlib", "lmdb + numpy"}
    ways = {"analysis", *_ways(modules)}
    for line in result["lines"]:
        assert set(line["engines"]) <= {"amberdb", *peers, *ways}, line["title"]
        assert line["row"] == "vector_burst" or line["engines"]["amberdb"]["value"] > 0, line
    nearest = [line for line in result["lines"] if line["row"] == "vector"]
    assert [line["state"] for line in nearest] == list(STATES)
    verdicts = [line["verdict"] for line in nearest if line["is_worst"]]
    assert len(verdicts) == 1
    assert verdicts[0] in ("met", "floor", "missed")
    for line in nearest:
        assert line["notes"]["left out: chroma"] == "absent is not installed"
        assert float(line["notes"]["recall@10 of amberdb"]) > 0.95
    killed = nearest[-1]
    assert killed["notes"]["left out: lmdb + hnswlib"] == "loses commits in a kill"
    assert killed["engines"].keys() == {"amberdb"}
    assert "left out: sqlite-vec" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == [target]  # the databases were removed
