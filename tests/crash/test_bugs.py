"""The sweeps are proved: each deliberate bug makes one fail that passes without it."""

from typing import Final, NamedTuple

import pytest

from support.bugs import SWEPT
from support.sweep import Figures, Lost, Sweep
from support.workload import ALPHABET, prepare


class Slice(NamedTuple):
    """A sweep that is enough for a bug, and what it must find."""

    steps: str
    finds: str
    """In the message: the mode where only one shows it, and what was broken."""
    recoveries: float = 0.0


_ROTATION: Final = "big_put+burst+big_put+checkpoint+big_put+burst"
_CHECK: Final = r"clean prefix: CheckReport\(problems=.* the head counts"

SLICES: Final = {
    "skip_the_sync_of_the_log": Slice("put", "reordered: .* shows that more was durable"),
    "acknowledge_before_the_sync": Slice("put+burst", "drop unsynced: commit 2 was acknowledged"),
    "forget_the_last_record_of_a_group": Slice("put", "reordered: .* shows that more was durable"),
    "ignore_the_class_of_a_commit": Slice("put+burst", "drop unsynced: commit 2 was acknowledged"),
    "drop_the_directory_sync_of_the_log": Slice("put", "the log in .* is gone"),
    "rename_manifest_before_its_sync": Slice("put", "MANIFEST is not AmberDB's"),
    "drop_the_directory_sync_of_manifest": Slice("put", "rename lost: .* was closed at Lsn 0"),
    "recycle_before_the_checkpoint": Slice("put+burst", "clean prefix: .*the log begins at"),
    "checkpoint_half_of_it": Slice("put+burst", _CHECK),
    "ignore_tombstones_at_the_checkpoint": Slice("put+index+overwrite+delete+transaction", _CHECK),
    "checkpoint_without_the_applied_lsn": Slice("put+burst", "clean prefix: .*the log begins at"),
    "ignore_tombstones_in_replay": Slice("transaction", _CHECK),
    "replay_half_a_transaction": Slice("put", _CHECK),
    "keep_the_epoch": Slice("put", "drop unsynced: Lsn ([0-9]+) was given, and \\1 would"),
    "accept_the_tail_without_rewriting_it": Slice(
        "put+burst", "clean prefix, operation .*, drop unsynced: .* was applied", recoveries=0.3
    ),
    "always_mark_clean": Slice("put", "clean prefix: .* was closed at Lsn 0"),
    "use_a_spare_without_its_header": Slice(_ROTATION, "bears the name of another segment"),
    "forget_the_newest_segment": Slice("put+burst", "clean prefix: commit 5 was acknowledged"),
}


def run(steps: str, recoveries: float) -> None:
    found = [prepare, *(ALPHABET[name] for name in steps.split("+"))]
    Sweep(Figures(), steps, found).run(recoveries=recoveries)


@pytest.mark.parametrize(
    ("steps", "recoveries"), sorted({(one.steps, one.recoveries) for one in SLICES.values()})
)
def test_without_a_bug_the_slices_pass(steps: str, recoveries: float) -> None:
    run(steps, recoveries)


@pytest.mark.parametrize("name", SWEPT)
def test_a_deliberate_bug_is_caught(name: str) -> None:
    steps, finds, recoveries = SLICES[name]
    with SWEPT[name](), pytest.raises(Lost, match=finds):
        run(steps, recoveries)
