"""Progress bars on stderr, drawn only when it is a terminal."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress_bar() -> Generator["Progress"]:
    """The bars of a command; it adds its tasks."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield progress


@contextmanager
def counting() -> Generator[Callable[[str, int], None]]:
    """A bar for each kind of thing that is counted, without a known total."""
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def advance(name: str, count: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.update(tasks[name], completed=count)

        yield advance


@contextmanager
def pairs_bar() -> Generator[Callable[[int, int], None]]:
    """The bar of a compaction: pairs copied, out of all."""
    with progress_bar() as bar:
        task = bar.add_task("pairs", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
