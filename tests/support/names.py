"""What is done to names in directories by code that makes its own file system."""

import os

import pytest

from amberdb._fs import OsFileSystem


def recorded_names(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Grows with each rename, as ("rename", new name), and each ("sync_dir", name)."""
    calls: list[tuple[str, str]] = []
    rename, sync_dir = OsFileSystem.rename, OsFileSystem.sync_dir

    def renamed(self: OsFileSystem, source: str, target: str) -> None:
        rename(self, source, target)
        calls.append(("rename", os.path.basename(target)))

    def synced(self: OsFileSystem, path: str) -> None:
        sync_dir(self, path)
        calls.append(("sync_dir", os.path.basename(path)))

    monkeypatch.setattr(OsFileSystem, "rename", renamed)
    monkeypatch.setattr(OsFileSystem, "sync_dir", synced)
    return calls
