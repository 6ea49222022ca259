"""Instruments over stats(), read by the SDK's own reader in memory."""

from typing import Any

import pytest

from amberdb import Database, Stats, Vector

pytest.importorskip("opentelemetry.sdk.metrics", reason="the extra `otel` and its SDK")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from amberdb.telemetry import observe

Values = dict[tuple[str, str], float]
"""By name and the attribute beside the path, if there is one."""


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def observed(db: Database, reader: InMemoryMetricReader) -> None:
    observe(db, MeterProvider([reader]).get_meter("test"))


def values(reader: InMemoryMetricReader) -> Values:
    found: Values = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes: dict[str, Any] = dict(point.attributes or {})
                    assert attributes.pop("path")
                    key = ",".join(map(str, attributes.values()))
                    assert isinstance(point, NumberDataPoint)
                    found[metric.name, key] = point.value
    return found


def test_what_stats_tell_is_observed(db: Database, reader: InMemoryMetricReader) -> None:
    observed(db, reader)
    notes = db.collection("n", indexes=[Vector("v", dim=2, source="text")])
    notes.put({"id": "a", "text": "waits"})
    notes.put({"id": "b", "v": [1, 0]})
    notes.search(vector=[1, 0])
    db.subscriber("s")
    db.checkpoint()
    with db.snapshot():
        found, stats = values(reader), db.stats()
    assert found["amberdb.lsn", "last"] == stats.last_lsn
    assert found["amberdb.lsn", "applied"] == stats.applied_lsn
    assert ("amberdb.lsn", "archived") not in found
    assert found["amberdb.disk.usage", "log"] == stats.bytes.log
    assert found["amberdb.documents", "n"] == 2
    assert found["amberdb.embedding.waiting", "n,v"] == 1
    assert found["amberdb.subscriber.lag", "s"] == stats.subscriber_lag["s"]
    assert found["amberdb.vector.dead", "n,vector:v"] == 0
    assert found["amberdb.snapshot.count", ""] == 1
    assert found["amberdb.checkpoint.count", ""] == 1
    assert found["amberdb.sync.count", ""] == stats.sync.count
    assert 0 < found["amberdb.sync.duration", "mean"] <= found["amberdb.sync.duration", "max"]
    notes.put({"id": "c"})
    assert values(reader)["amberdb.documents", "n"] == 3, "taken anew"


def test_one_collection_takes_stats_once(
    db: Database, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed(db, reader)
    taken: list[int] = []
    original = Database.stats

    def stats(self: Database) -> Stats:
        taken.append(1)
        return original(self)

    monkeypatch.setattr(Database, "stats", stats)
    for number in (1, 2, 3):
        assert values(reader)
        assert len(taken) == number


def test_a_closed_database_is_told_no_more(db: Database, reader: InMemoryMetricReader) -> None:
    observed(db, reader)
    assert values(reader)
    db.close()
    assert values(reader) == {}
