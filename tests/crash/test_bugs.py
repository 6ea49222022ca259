"""The sweeps are proved: each deliberate bug makes one fail that passes without it."""

import pytest

from amberdb import AmberError
from support.bugs import SWEPT
from support.sweep import Figures, Lost, Sweep
from support.workload import ALPHABET, prepare

SLICES = (
    ("overwrite", "delete", "checkpoint", "burst", "reopen"),
    ("big_put", "burst", "big_put", "checkpoint", "big_put", "burst"),
    ("put", "index", "overwrite", "delete", "transaction"),
)


def run_slices() -> None:
    for names in SLICES:
        steps = [prepare, *(ALPHABET[name] for name in names)]
        Sweep(Figures(), "+".join(names), steps).run(recoveries=0.3)


def test_without_a_bug_the_slices_pass() -> None:
    run_slices()


@pytest.mark.parametrize("name", SWEPT)
def test_a_deliberate_bug_is_caught(name: str) -> None:
    with SWEPT[name](), pytest.raises((Lost, AmberError)):
        run_slices()
