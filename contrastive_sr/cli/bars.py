"""Progress bars on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bars() -> Progress:
    """Bars that go away at the end."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


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
