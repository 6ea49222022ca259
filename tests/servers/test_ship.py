"""Shipping to a real S3 server: kills on both sides, and what is told of wrong settings."""

import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import amberdb
from amberdb.ship import (
    S3Options,
    TargetAccessError,
    TargetMissingError,
    prune,
    restore_from,
    ship,
    shipped,
)
from support.s3 import ACCESS_KEY, SECRET, S3Server, seaweed
from support.shipping import behind_s, killed_after

if TYPE_CHECKING:
    from support.databases import OpenDatabase

KEY = bytes(range(32))
OUTAGE_S = 10.0
BEHIND_S_MAX = 1.0


def test_a_killed_writer_is_at_most_a_second_ahead(tmp_path: Path, s3_server: S3Server) -> None:
    target = s3_server.url("killed")
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, **s3_server.environment}
    writer = killed_after(5.0, tmp_path / "t.amber", target, every_ms=500, environment=environment)
    path = tmp_path / "elsewhere.amber"
    behind = behind_s(writer, target, path, s3=s3_server.options)
    print(f"{len(writer.acknowledged)} acknowledged, {behind:.2f} s behind")
    assert behind <= BEHIND_S_MAX


@pytest.fixture
def db(open_db: "OpenDatabase") -> amberdb.Database:
    """In a directory: what is shipped are its files."""
    return open_db()


def test_an_outage_is_caught_up(db: amberdb.Database, tmp_path: Path) -> None:
    documents = db.collection("x")
    count, slowest = 0, 0.0
    with seaweed() as server:
        target, s3 = server.url("outage"), server.options
        with ship(db, target, every_ms=100, s3=s3) as shipper:
            documents.put({"id": "before"})
            assert shipper.wait_for(db.refresh(), 60)
            server.kill()
            late = ship(db, server.url("late"), every_ms=100, s3=s3)
            end = time.monotonic() + OUTAGE_S
            while (start := time.monotonic()) < end:
                documents.put({"id": f"{count}"})
                slowest = max(slowest, time.monotonic() - start)
                count += 1
            assert shipper.status().failed > 0
            assert "does not answer" in (shipper.status().last_error or "")
            server.restart()
            start = time.monotonic()
            assert shipper.wait_for(db.refresh(), 120)
            assert late.wait_for(db.refresh(), 120)
            late.close()
            print(f"{count} puts, {slowest * 1e3:.0f} ms the slowest")
            print(f"caught up {time.monotonic() - start:.1f} s after the restart")
        restore_from(target, tmp_path / "again.amber", s3=s3)
    with amberdb.open(tmp_path / "again.amber") as again:
        assert len(again["x"]) == count + 1
        assert again.check().ok


def test_large_archives_and_keys(db: amberdb.Database, tmp_path: Path, s3_server: S3Server) -> None:
    s3 = s3_server.options
    documents = db.collection("x")
    documents.put_many({"id": f"{n}", "t": os.urandom(300_000)} for n in range(70))
    for key in (None, KEY):
        target = s3_server.url(f"large {key is None}")
        with ship(db, target, every_ms=1e9, key=key, s3=s3) as shipper:
            shipper.ship_now()
            documents.put({"id": f"late {key is None}"})
        assert shipped(target, s3=s3)[0].size_bytes > 20_000_000  # in several parts
        path = tmp_path / f"again-{key is None}.amber"
        restore_from(target, path, key=key, s3=s3)
        with amberdb.open(path) as again:
            assert len(again["x"]) == len(documents)
            assert again["x"].get("7") == documents.get("7")


def test_it_goes_on_joins_and_prunes(
    open_db: "OpenDatabase", tmp_path: Path, s3_server: S3Server
) -> None:
    s3, target = s3_server.options, s3_server.url("a/deeper/prefix")
    for start in (0, 80):
        db = open_db()
        with ship(db, target, every_ms=1e9, s3=s3) as shipper:
            for number in range(start, start + 80):
                db.collection("x").put({"id": f"{number}"})
                shipper.ship_now()
        db.close()
    archives = shipped(target, s3=s3)
    assert [archive.kind for archive in archives].count("full") == 1
    assert [archive.kind for archive in archives].count("join") == 2
    assert len(archives) < 70
    db = open_db()
    with ship(db, target, every_ms=1e9, s3=s3) as shipper:
        receipt = db.erase("x", {"id": "5"}, reason="asked")
        shipper.ship_now()
    assert receipt.completed is not None
    removed = prune(target, receipt.completed, s3=s3)
    assert {archive.name for archive in archives} <= {archive.name for archive in removed}
    restore_from(target, tmp_path / "again.amber", s3=s3)
    with amberdb.open(tmp_path / "again.amber") as again:
        assert len(again["x"]) == 159


def test_wrong_credentials_are_told_without_them(
    db: amberdb.Database, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [
        S3Options(secret_access_key="not-the-secret"),
        S3Options(access_key_id="not-the-user"),
    ]
    for change in wrong:
        options: S3Options = {**s3_server.options, **change}
        for call in (
            lambda: ship(db, s3_server.url("x"), s3=options),  # noqa: B023
            lambda: shipped(s3_server.url("x"), s3=options),  # noqa: B023
        ):
            with pytest.raises(TargetAccessError, match="AWS_ACCESS_KEY_ID") as told:
                call()
            text = caplog.text + "".join(
                traceback.format_exception_only(told.value)
                + traceback.format_exception(told.value.__cause__)
            )
            for secret in (ACCESS_KEY, SECRET, "not-the-secret", "not-the-user"):
                assert secret not in text


def test_a_missing_bucket_is_told(db: amberdb.Database, s3_server: S3Server) -> None:
    with pytest.raises(TargetMissingError, match="the bucket nothing does not exist: create it"):
        ship(db, "s3://nothing/x", s3=s3_server.options)
    with pytest.raises(TargetMissingError, match="no archive to begin with"):
        restore_from(s3_server.url("empty"), "never.amber", s3=s3_server.options)
