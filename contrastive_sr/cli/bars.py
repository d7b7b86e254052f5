"""Progress bars on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from contrastive_sr.cli.tables import Screen


def progress_bars() -> Progress:
    """Bars that go away at the end."""
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=Screen(stderr=True), transient=True, disable=not sys.stderr.isatty())


@contextmanager
def bars_of(passing: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each task of a block of code, from its first report on.

    Args:
        passing: the task whose bar goes away when it is done.

    Yields:
        What moves them, to be called as (task, done, total).
    """
    with progress_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def show(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done)
            if task == passing and done == total:
                bars.remove_task(tasks[task])

        yield show


@contextmanager
def one_bar(description: str) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for a block of code.

    Args:
        description: text in front of it.

    Yields:
        What moves it, to be called as (item, done, total).
    """
    with progress_bars() as bars:
        task = bars.add_task(description, total=None)
        yield lambda item, done, total: bars.update(task, completed=done, total=total)
