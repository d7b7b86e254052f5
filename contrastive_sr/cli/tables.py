"""Where tables are printed to."""

from __future__ import annotations

from rich.console import Console

_WIDE = 1000


def for_tables(console: Console) -> Console:
    """The console itself if it is a screen or keeps a record; else, as files have no width, one that breaks no cell."""
    return console if console.is_terminal or console.record else Console(file=console.file, width=_WIDE)
