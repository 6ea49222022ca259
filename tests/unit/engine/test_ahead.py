"""Reading ahead gives what the generator gives, and leaves no thread."""

import threading
from collections.abc import Generator

import pytest

from amberdb.engine.backup.ahead import AHEAD, ahead


class Numbers:
    """Counts what was made, and whether the generator was closed."""

    def __init__(self, end: int, error: BaseException | None = None) -> None:
        self.made = 0
        self.is_closed = False
        self._end = end
        self._error = error

    def items(self) -> Generator[int]:
        try:
            for number in range(self._end):
                self.made += 1
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "numbers"]


@pytest.mark.parametrize("count", [0, 1, AHEAD, 100])
def test_all_items_come_in_order(count: int) -> None:
    numbers = Numbers(count)
    assert list(ahead(numbers.items(), "numbers")) == list(range(count))
    assert numbers.is_closed
    assert threads() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    found: list[int] = []
    source = ahead(Numbers(5, OSError("broken")).items(), "numbers")
    with pytest.raises(OSError, match="broken"):
        found.extend(source)
    assert found == [0, 1, 2, 3, 4]
    assert threads() == []


def test_one_that_is_left_early_makes_few_more_and_ends() -> None:
    numbers = Numbers(1000)
    source = ahead(numbers.items(), "numbers")
    assert [next(source) for _ in range(3)] == [0, 1, 2]
    assert threads() == ["numbers"]
    source.close()
    assert threads() == []
    assert numbers.is_closed
    assert numbers.made <= 3 + AHEAD


def test_without_a_thread_the_items_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("amberdb._worker._warned", True)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(ahead(Numbers(10).items(), "numbers")) == list(range(10))
