"""Threads that repeat their jobs beside a test, and end with it however it ends: a thread that
outlives a failed test would keep its worker from ever ending."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def beside(*jobs: Callable[[], object]) -> Generator[None]:
    """Each job is called again and again by a thread of its own until the block ends, or until it
    raises. The first exception of a job is raised at the end of the block."""
    over = threading.Event()
    failures: list[BaseException] = []

    def repeat(job: Callable[[], object]) -> None:
        try:
            while not over.is_set():
                job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
