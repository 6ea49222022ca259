"""Opening a log at the record that was applied last."""

import pytest

from amberdb._errors import CorruptionError
from amberdb._types import Lsn
from unit.wal.helpers import LogDirectory, fill, lsn, rotate


def opened(
    directory: LogDirectory, applied: Lsn, offset: int | None, clean: Lsn | None = None
) -> tuple[list[bytes], Lsn]:
    log, recovery = directory.reopen(applied=applied, applied_offset=offset, clean=clean)
    log.close()
    return directory.payloads(), recovery.last_lsn


@pytest.mark.parametrize("is_clean", [True, False])
def test_what_was_applied_is_not_read_again(directory: LogDirectory, is_clean: bool) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    offset = log.last_offset
    later = fill(log, range(5, 8))
    log.close()
    (path,) = directory.segments()
    directory.damage(path, directory.headers(path)[2].offset)
    clean = lsn(7) if is_clean else None
    with pytest.raises(CorruptionError, match=r"Lsn .* was applied|durable|closed at Lsn"):
        directory.reopen(applied=lsn(4), clean=clean)
    assert opened(directory, lsn(4), offset, clean) == (later, lsn(7))


def test_the_log_goes_on_behind_it(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    offset = log.last_offset
    log.close()
    log, _ = directory.reopen(applied=lsn(4), applied_offset=offset, clean=lsn(4))
    assert log.last_offset is None  # nothing is there to be applied
    later = fill(log, range(5, 7))
    (path,) = directory.segments()
    assert log.last_offset == directory.headers(path)[-1].offset
    log.close()
    assert opened(directory, lsn(4), offset) == (later, lsn(6))
    assert len(opened(directory, Lsn(0), None)[0]) == 6


def test_a_record_that_was_replayed_has_its_offset(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    offset = log.last_offset
    log, _ = directory.reopen(applied=lsn(1))
    assert log.last_offset == offset
    log.close()


@pytest.mark.parametrize("step", [-512, -56, 8, 56, 112, 1 << 40, 1 << 63])
def test_a_wrong_offset_changes_nothing(directory: LogDirectory, step: int) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    offset = log.last_offset
    assert offset is not None
    later = fill(log, range(5, 8))
    log.close()
    assert opened(directory, lsn(4), max(0, offset + step), lsn(7)) == (later, lsn(7))


@pytest.mark.parametrize("left", [0, 44, 48])
def test_a_record_that_is_not_whole_is_damage(directory: LogDirectory, left: int) -> None:
    """Its header alone is not enough: the next record would be written past the end."""
    log = directory.create()
    fill(log, range(1, 5))
    offset = log.last_offset
    log.close()
    (path,) = directory.segments()
    assert offset is not None
    with open(path, "r+b") as file:
        file.truncate(offset + left)
    with pytest.raises(CorruptionError, match="was applied"):
        directory.reopen(applied=lsn(4), applied_offset=offset)


def test_an_offset_in_an_earlier_segment(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4))
    offset = log.last_offset
    later = fill(log, range(4, 6))
    rotate(log)
    later += fill(log, range(6, 8))
    log.close()
    assert opened(directory, lsn(3), offset) == (later, lsn(7))


def test_a_torn_tail_behind_it_is_cut(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4))
    offset = log.last_offset
    later = fill(log, range(4, 8), sync=False)
    (path,) = directory.segments()
    directory.damage(path, directory.headers(path)[-1].offset + 44)
    log, recovery = directory.reopen(applied=lsn(3), applied_offset=offset)
    assert recovery.cut is not None
    assert (directory.payloads(), recovery.last_lsn) == (later[:3], lsn(6))
    log.close()
    assert len(opened(directory, Lsn(0), None)[0]) == 6
