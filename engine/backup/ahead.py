"""Reading ahead: another thread makes the next items of a generator while this one uses the last.

Invariants:
- The items, their order and the error at their end are those of the generator.
- At most AHEAD items wait. When the outer generator is closed, by its end or by an error where it
  is used, the inner one is closed and its thread has ended.
- Where no thread can be had, the items are made by this one.
"""

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Final, TypeVar

from amberdb._worker import started

T = TypeVar("T")

AHEAD: Final = 3


def ahead(
    items: Generator[T], name: str, is_busy: Callable[[], bool] = lambda: False
) -> Generator[T]:
    """The items, made in a thread with this name; while others are busy, by turns with the thread
    that uses them."""
    made: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    wanted: SimpleQueue[bool] = SimpleQueue()

    def run() -> None:
        end: BaseException | None = None
        try:
            while wanted.get():
                made.put((next(items),))
            items.close()
        except StopIteration:
            pass
        except BaseException as error:
            end = error
        made.put(end)

    thread = threading.Thread(target=run, name=name, daemon=True)
    if not started(thread):
        yield from items
        return
    waiting = 0
    try:
        while True:
            while waiting < (1 if is_busy() else AHEAD):
                wanted.put(True)
                waiting += 1
            found = made.get()
            if not isinstance(found, tuple):
                break
            waiting -= 1
            yield found[0]
        if found is not None:
            raise found
    finally:
        wanted.put(False)
        thread.join()
