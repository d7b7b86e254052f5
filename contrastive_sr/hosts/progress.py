"""A progress bar for training that shares the console with the hosts' own logging."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PROGRESS_FD = "CONTRASTIVE_SR_PROGRESS_FD"
"""Environment variable: number of an inherited file descriptor to draw on, instead of standard error."""


def _format_metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _format_seconds(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class TrainingProgress:
    """Shows step, speed, time left and a few metrics while a host trains.

    On a terminal this is a bar that stays at the bottom: what the host logs to the console scrolls above it. Elsewhere
    (a file, a pipe) a short line is written about every tenth of the way.

    Args:
        total: number of the last step, at least 1.
        start: number of the step that training starts after, 0 unless it was resumed.
        title: text in front of the bar.
        loggers: the host's loggers that `logging.getLogger` does not know.

    Example:
        >>> with TrainingProgress(total=100, title="EDSR") as progress:  # doctest: +SKIP
        ...     progress.update(10, loss=0.05)
    """

    def __init__(
        self, total: int, start: int = 0, title: str = "training", *, loggers: Iterable[logging.Logger] = ()
    ) -> None:
        if total < 1 or not 0 <= start <= total:
            raise ValueError(f"Expected total >= 1 and 0 <= start <= total, got total={total} and start={start}.")
        self.total, self.start, self.title = total, start, title
        self._loggers = tuple(loggers)
        self._step = start
        self._metrics: dict[str, float] = {}
        self._exit = ExitStack()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._stream: TextIO = sys.stderr
        self._began = 0.0
        self._next_line = 0

    def __enter__(self) -> TrainingProgress:
        descriptor = os.environ.get(PROGRESS_FD)
        inherited = descriptor is not None
        if descriptor is not None:
            # a descriptor of our own: closing it at the end leaves the inherited one open
            self._stream = self._exit.enter_context(open(os.dup(int(descriptor)), "w", encoding="utf-8"))
        else:
            self._stream = sys.stderr
        self._began = time.monotonic()
        self._next_line = self.start + self._line_interval()
        if self._stream.isatty():
            self._start_bar(share_console=not inherited)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.refresh()
        self._exit.close()
        self._bar = None

    def update(self, step: int, **metrics: float) -> None:
        """Report that `step` steps are done.

        Args:
            step: number of steps done, counted from the very first one (not from `start`).
            metrics: values to show, such as `loss` or `psnr`; each stays until it is given again.
        """
        self._step = step
        self._metrics.update(metrics)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, speed=self._speed(), metrics=_format_metrics(self._metrics))
        elif step >= min(self._next_line, self.total):
            if step > self.start:
                print(self._line(), file=self._stream, flush=True)
            while self._next_line <= step:
                self._next_line += self._line_interval()

    def _line_interval(self) -> int:
        return max(1, (self.total - self.start) // 10)

    def _rate(self) -> float:
        done, seconds = self._step - self.start, time.monotonic() - self._began
        return done / seconds if done > 0 and seconds > 0 else 0.0

    def _speed(self) -> str:
        rate = self._rate()
        if rate == 0:
            return "- it/s"
        return f"{rate:.2f} it/s" if rate >= 1 else f"{1 / rate:.2f} s/it"

    def _line(self) -> str:
        left = (self.total - self._step) / self._rate() if self._rate() else 0.0
        metrics = _format_metrics(self._metrics)
        text = (
            f"{self.title}: {100 * self._step // self.total} % ({self._step}/{self.total})  {self._speed()}  "
            f"{_format_seconds(left)} left  {metrics}"
        )
        return text.rstrip()

    def _start_bar(self, *, share_console: bool) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[metrics]}"),
            console=Console(file=self._stream),
            expand=True,
            refresh_per_second=4,
            # a standard output that goes elsewhere (a file) stays untouched
            redirect_stdout=share_console and sys.stdout.isatty(),
            redirect_stderr=share_console,
        )
        before = (sys.stdout, sys.stderr)
        self._exit.enter_context(self._bar)
        # resumed steps belong to the bar but not to its speed, so the task is born with them
        self._task = self._bar.add_task(self.title, total=self.total, completed=self.start, speed="- it/s", metrics="")
        for old, new in zip(before, (sys.stdout, sys.stderr), strict=True):
            if new is not old:
                self._move_log_handlers(old, new)

    def _move_log_handlers(self, old: TextIO, new: TextIO) -> None:
        """Send log handlers that hold the bare console through the bar, until the end."""
        known = [logging.root, *logging.root.manager.loggerDict.values(), *self._loggers]
        for logger in known:
            for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
                if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                    handler.setStream(new)
                    self._exit.callback(handler.setStream, old)
