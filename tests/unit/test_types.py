"""Lsns: an epoch and a number in one int that grows."""

from typing import get_args

import pytest

from amberdb._types import LSN_NUMBER_BITS, NO_LSN, Sync, lsn_epoch, lsn_number


@pytest.mark.parametrize(
    ("epoch", "number"), [(0, 0), (1, 1), (1, (1 << LSN_NUMBER_BITS) - 1), (2, 0), (1000, 5)]
)
def test_lsn_is_taken_apart_as_it_was_put_together(epoch: int, number: int) -> None:
    lsn = epoch << LSN_NUMBER_BITS | number
    assert (lsn_epoch(lsn), lsn_number(lsn)) == (epoch, number)


def test_a_later_epoch_is_greater_whatever_the_number() -> None:
    assert 2 << LSN_NUMBER_BITS > (1 << LSN_NUMBER_BITS | ((1 << LSN_NUMBER_BITS) - 1)) > NO_LSN


def test_sync_has_three_classes() -> None:
    assert get_args(Sync) == ("always", "interval", "os")
