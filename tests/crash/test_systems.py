"""Kills of a process that writes to all memory systems at once: tests/crash/systems.py, shortly."""

from pathlib import Path

import pytest

from crash.systems import WRITERS, soak
from support import slices


@pytest.mark.slow
@pytest.mark.sliced
def test_no_system_loses_what_it_acknowledged(tmp_path: Path) -> None:
    seed = 17
    figures = soak(tmp_path / "t.amber", seed, slices.size(30, 4), round_s=2)
    assert figures.is_good, figures
    assert all(figures.calls[name] for name in WRITERS), figures.calls
