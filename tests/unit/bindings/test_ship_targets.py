"""Targets of ship(): URLs, credentials and missing packages are told, and no secret is."""

import sys
from pathlib import Path

import pytest

import amberdb
from amberdb.ship import (
    ArchiveKeyError,
    ShipError,
    ShipExtraError,
    TargetAccessError,
    TargetMissingError,
    TargetUrlError,
    key_from,
    restore_from,
    ship,
    shipped,
)

SECRET = "topsecret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "/a/folder",
        "ftp://bucket/x",
        "s3://",
        "s3:///prefix",
        "file://folder",
        "file://host/folder",
        "http://[bad",
        f"s3://user:{SECRET}@bucket/x",
        f"s3://bucket/x?secret_access_key={SECRET}",
        f"s3://bucket/x#{SECRET}",
        f"s3://{SECRET}@bucket/x",
    ],
)
def test_a_wrong_url_is_told_without_its_secrets(db: amberdb.Database, url: str) -> None:
    for call in (lambda: ship(db, url), lambda: shipped(url), lambda: restore_from(url, "x")):
        with pytest.raises(TargetUrlError, match="s3://bucket/prefix") as told:
            call()
        assert SECRET not in str(told.value)


def test_an_unknown_option_is_told(db: amberdb.Database) -> None:
    options = {"password": SECRET}
    with pytest.raises(TargetUrlError, match="the options are endpoint") as told:
        ship(db, "s3://bucket/x", s3=options)  # type: ignore[arg-type]
    assert SECRET not in str(told.value)
    with pytest.raises(TargetUrlError, match="https://"):
        ship(db, "s3://bucket/x", s3={"endpoint": "not a url"})


def test_a_missing_folder_is_told(db: amberdb.Database, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/away"
    path = tmp_path / "r"
    for call in (lambda: ship(db, url), lambda: shipped(url), lambda: restore_from(url, path)):
        with pytest.raises(TargetMissingError, match="create the folder"):
            call()
    (tmp_path / "away").mkdir()
    with pytest.raises(TargetMissingError, match="no archive to begin with"):
        restore_from(url, tmp_path / "r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "t.amber"]


def test_missing_packages_are_told(
    db: amberdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ShipExtraError, match=r'pip install "amberdb\[s3\]"'):
        ship(db, "s3://bucket/x")
    for name in [name for name in sys.modules if name.startswith("cryptography.hazmat.primitives")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hashes", None)
    (tmp_path / "away").mkdir()
    shipper = ship(db, f"file://{tmp_path}/away", key=bytes(32), every_ms=1e9)
    with pytest.raises(ShipExtraError, match=r'pip install "amberdb\[crypto\]"'):
        shipper.ship_now()
    shipper.close()


def test_an_interval_is_above_zero(db: amberdb.Database, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_ms"):
        ship(db, f"file://{tmp_path}", every_ms=0)


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0f" * 32 + "\n")
    assert key_from(file) == b"\x0f" * 32
    file.write_bytes(b"\xff" * 32)
    assert key_from(file) == b"\xff" * 32
    for content in (b"", b"0f" * 31, b"\xff" * 33, b"no hex digits at all"):
        file.write_bytes(content)
        with pytest.raises(ArchiveKeyError, match="openssl") as told:
            key_from(file)
        assert "0f" not in str(told.value)


def test_a_server_that_does_not_answer_harms_nobody(db: amberdb.Database) -> None:
    closed = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": SECRET}
    documents = db.collection("x")
    with ship(db, "s3://bucket/x", s3=closed, every_ms=1e9) as shipper:  # type: ignore[arg-type]
        documents.put({"id": "a"})
        with pytest.raises(ShipError, match="does not answer") as told:
            shipper.ship_now()
        assert shipper.status().lsn is None
    assert SECRET not in repr(told.value) + repr(shipper) + str(shipper.status())


def test_a_folder_without_permission_is_told(
    db: amberdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(TargetAccessError, match="permissions"):
        shipped(f"file://{tmp_path}")
