"""The screen, and where tables are printed to."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from contrastive_sr.errors import printable

_WIDE = 1000


class Screen(Console):
    """A console on which names of files can do no harm: control characters and bytes that are not UTF-8 are escaped."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **{**how, "emoji": False})


def replace_unencodable() -> None:
    """Print a question mark for what the encoding of the terminal or file does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def for_tables(console: Console) -> Console:
    """The console itself if it is a screen or keeps a record; else, as files have no width, one that breaks no cell."""
    return console if console.is_terminal or console.record else Screen(file=console.file, width=_WIDE)
