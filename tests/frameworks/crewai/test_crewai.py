"""The storage in CrewAI's Memory, beside a plain model, and behaviour of its own."""

import asyncio
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError, StorageBackend
from crewai.memory.types import MemoryRecord
from crewai.memory.unified_memory import Memory

import amberdb
from amberdb.integrations.crewai import AmberStorage

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "crewai.md"
START = datetime(2026, 1, 1)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CrewAI calls nobody, and writes only below the directory of the test."""
    monkeypatch.setenv("CREWAI_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path / "crewai"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "crew.amber"


@pytest.fixture
def storage(path: Path) -> Iterator[AmberStorage]:
    storage = AmberStorage(path)
    yield storage
    storage.close()


def record(id: str, scope: str = "/", **more: Any) -> MemoryRecord:
    given = {"content": id, "created_at": START, "last_accessed": START, **more}
    return MemoryRecord(id=id, scope=scope, **given)


def ids(records: list[MemoryRecord]) -> list[str]:
    return [each.id for each in records]


def test_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    sample = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert sample is not None
    exec(compile(sample[1], str(PAGE), "exec"), {"__name__": "sample"})


def test_it_is_a_backend(storage: AmberStorage) -> None:
    assert isinstance(storage, StorageBackend)


def test_a_record_comes_back_whole(storage: AmberStorage) -> None:
    given = record(
        "a",
        "/team/林",
        content="下午的会议",
        categories=["work", "会"],
        metadata={"a.b": [1, {"$x": None}], "n": 1.5},
        importance=0.75,
        embedding=[0.5, 0.25],
        source="lin",
        private=True,
    )
    storage.save([given])
    assert storage.get_record("a") == given
    assert storage.get_record("gone") is None
    (listed,) = storage.list_records()
    assert listed == given.model_copy(update={"embedding": None})
    east = timedelta(hours=8)
    storage.update(record("a", created_at=datetime(2026, 1, 1, 8, tzinfo=UTC) + east))
    again = storage.get_record("a")
    assert again is not None
    assert (again.created_at, again.embedding) == (datetime(2026, 1, 1, 16), None)


SCOPES = ["/", "/team", "/team/lin", "/team/lin/notes", "/team2", "/王", "team/lin/"]


@pytest.mark.parametrize("seed", range(4))
def test_scopes_are_paths(storage: AmberStorage, seed: int) -> None:
    chance = random.Random(seed)
    records = [
        record(
            f"{n:02}",
            chance.choice(SCOPES),
            categories=chance.sample(["a", "b", "c"], chance.randrange(4)),
            created_at=START + timedelta(hours=chance.randrange(20)),
        )
        for n in range(40)
    ]
    storage.save(records)
    for scope in [*SCOPES, "/none", "/te", None]:
        inside = "/".join(part for part in (scope or "").split("/") if part)
        has = [
            each
            for each in records
            if not inside or f"/{each.scope.strip('/')}/".startswith(f"/{inside}/")
        ]
        assert storage.count(scope) == len(has)
        newest = sorted(has, key=lambda each: (each.created_at, each.id), reverse=True)
        assert ids(storage.list_records(scope)) == ids(newest)
        assert ids(storage.list_records(scope, limit=3, offset=2)) == ids(newest[2:5])
        assert storage.list_records(scope, limit=3, offset=len(has)) == []
        counts = storage.list_categories(scope)
        assert counts == {
            name: count for name in "abc" if (count := sum(name in each.categories for each in has))
        }
        info = storage.get_scope_info(scope or "/")
        assert (info.record_count, info.categories) == (len(has), sorted(counts))
        times = [each.created_at for each in has]
        assert info.oldest_record == min(times, default=None)
        assert info.newest_record == max(times, default=None)
        assert info.child_scopes == storage.list_scopes(scope or "/")
    assert storage.list_scopes() == ["/team", "/team2", "/王"]
    assert storage.list_scopes("/team/") == ["/team/lin"]
    storage.reset("/team")
    assert storage.list_scopes() == ["/team2", "/王"]


def test_filters_come_before_the_limit(storage: AmberStorage) -> None:
    storage.save(
        [
            record(
                f"{n:03}",
                "/a" if n % 2 else "/b",
                embedding=[1.0, n / 100],
                categories=["rare"] if n > 95 else [],
                metadata={"n": n},
            )
            for n in range(100)
        ]
    )
    found = storage.search([1.0, 0.0], categories=["rare", "other"], limit=3)
    assert [each.id for each, _ in found] == ["096", "097", "098"]
    found = storage.search([1.0, 0.0], "/a", metadata_filter={"n": 97})
    assert [each.id for each, _ in found] == ["097"]
    found = storage.search([1.0, 0.0], min_score=0.99999)
    assert [each.id for each, _ in found] == ["000"]
    assert found[0][1] == pytest.approx(1)
    assert storage.search([1.0, 0.0], limit=0) == []


def test_deletion_needs_all_conditions(storage: AmberStorage) -> None:
    def saved() -> None:
        storage.reset()
        storage.save(
            [
                record("a", "/x", categories=["c"], metadata={"k": 1}),
                record("b", "/x", created_at=START + timedelta(days=1)),
                record("c", "/y", categories=["c"]),
            ]
        )

    for given, left in (
        ({"record_ids": ["a", "gone"]}, ["b", "c"]),
        ({"record_ids": ["a", "c"], "scope_prefix": "/x"}, ["b", "c"]),
        ({"record_ids": []}, ["a", "b", "c"]),
        ({"categories": ["c"], "scope_prefix": "/y"}, ["a", "b"]),
        ({"older_than": START + timedelta(hours=1)}, ["b"]),
        ({"metadata_filter": {"k": 1}}, ["b", "c"]),
        ({}, []),
    ):
        saved()
        assert storage.delete(**given) == 3 - len(left)
        assert sorted(ids(storage.list_records())) == left


def test_embeddings_have_one_dimension(storage: AmberStorage, path: Path) -> None:
    assert storage.search([1.0]) == []
    storage.save([record("a")])
    storage.save([record("b", embedding=[1.0, 0.0])])
    other = AmberStorage(path)
    for call in (
        lambda: other.save([record("c"), record("d", embedding=[1.0])]),
        lambda: other.update(record("b", embedding=[1.0, 2.0, 3.0])),
        lambda: other.search([1.0]),
    ):
        with pytest.raises(EmbeddingDimensionMismatchError):
            call()
    assert storage.count() == 2
    storage.reset()
    other.save([record("c", embedding=[1.0])])
    assert [each.id for each, _ in storage.search([1.0])] == ["c"]
    other.close()


def test_access_is_noted(storage: AmberStorage) -> None:
    storage.save([record("a", embedding=[1.0, 0.0]), record("b")])
    storage.touch_records(["a", "gone"])
    touched, other = storage.get_record("a"), storage.get_record("b")
    assert touched is not None
    assert other is not None
    assert touched.last_accessed > START == other.last_accessed
    assert touched.embedding == [1.0, 0.0]


def test_tasks_save_side_by_side(storage: AmberStorage) -> None:
    async def every() -> int:
        await asyncio.gather(
            *(storage.asave([record(f"{n}", embedding=[1.0, float(n)])]) for n in range(30))
        )
        found = await storage.asearch([1.0, 0.0], limit=50)
        assert await storage.adelete(record_ids=["3"]) == 1
        return len(found)

    assert asyncio.run(every()) == 30
    assert storage.count() == 29


def test_a_storage_is_closed_twice_and_opened_again(path: Path) -> None:
    storage = AmberStorage(path)
    storage.save([record("a", embedding=[1.0, 0.0])])
    storage.close()
    storage.close()
    with pytest.raises(amberdb.ClosedError):
        storage.count()
    with amberdb.open(path) as db:
        again = AmberStorage(db)
        assert [each.id for each, _ in again.search([1.0, 0.0])] == ["a"]
        again.close()
        db.collection("mine", indexes=[], owner="me")
        with pytest.raises(amberdb.CollectionError, match="mine"):
            AmberStorage(path, collection="mine")


def test_in_a_memory_of_crewai(storage: AmberStorage) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] if "伞" in text else [0.0, 1.0] for text in texts]

    memory = Memory(storage=storage, embedder=embed, llm="none")
    given: dict[str, Any] = {"categories": ["home"], "metadata": {}, "importance": 0.5}
    memory.remember("雨伞在车里", scope="/lin", **given)
    memory.remember("nothing", scope="/lin", **given)
    memory.drain_writes()
    found = memory.recall("伞在哪里？", scope="/lin", depth="shallow", limit=1)
    assert [each.record.content for each in found] == ["雨伞在车里"]
    assert memory.list_scopes() == ["/lin"]
    assert memory.forget(scope="/lin") == 2
    memory.close()
