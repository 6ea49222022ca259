"""Reading ahead: another thread makes the next items of an iterator while this one uses the last.

Invariants:
- The items, their order and the error at their end are those of the iterator.
- At most AHEAD items wait. When the generator is closed, by its end or by an error where it is
  used, the iterator is closed and its thread has ended.
- Where no thread can be had, the items are made by this one.
"""

import threading
from collections.abc import Generator
from queue import Empty, Queue
from typing import Final, TypeVar

from amberdb._worker import started

T = TypeVar("T")

AHEAD: Final = 3


def ahead(items: Generator[T], name: str) -> Generator[T]:
    """The items, made in a thread with this name."""
    waiting: Queue[tuple[T] | BaseException | None] = Queue(AHEAD)
    is_over = threading.Event()

    def run() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                waiting.put((item,))
                if is_over.is_set():
                    break
            items.close()
        except BaseException as error:
            end = error
        waiting.put(end)

    thread = threading.Thread(target=run, name=name, daemon=True)
    if not started(thread):
        yield from items
        return
    try:
        while isinstance(found := waiting.get(), tuple):
            yield found[0]
        if found is not None:
            raise found
    finally:
        is_over.set()
        while thread.is_alive():
            try:
                waiting.get(timeout=0.001)  # the thread may wait for room
            except Empty:
                pass
        thread.join()
