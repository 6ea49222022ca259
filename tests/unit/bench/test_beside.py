"""The table "Beside others" of the README: its checks run, and what was kept is whole."""

import json
from pathlib import Path

import pytest

from bench.beside.checks import CHECKS, chinese, deletion, processes, transaction
from bench.beside.stores import STORES
from support.databases import audited

ROOT = Path(__file__).parents[3]


def test_amberdb_is_what_the_readme_says(tmp_path: Path) -> None:
    assert chinese("amberdb", tmp_path).startswith("found by 开会, ")
    assert transaction("amberdb", tmp_path) == "0 by words, 2 by vector"  # those of before
    assert deletion("amberdb", tmp_path) == "still in: no file"
    with audited(tmp_path / "memory.amber") as db:
        assert len(db["note"]) == 1


@pytest.mark.slow
def test_two_processes_of_amberdb_lose_nothing(tmp_path: Path) -> None:
    seen = processes("amberdb", tmp_path)
    assert seen == "401 of 401 there, 401 found by a search; the second process: done"


def test_a_deletion_that_leaves_bytes_is_seen(tmp_path: Path) -> None:
    assert deletion("sqlite", tmp_path) == "still in: memory.db"


def test_the_kept_result_has_every_check_of_every_system() -> None:
    kept = json.loads((ROOT / "bench/results/2026-11-30-beside.json").read_text("utf-8"))
    assert {name: list(seen) for name, seen in kept["seen"].items()} == {
        name: list(CHECKS) for name in STORES
    }
