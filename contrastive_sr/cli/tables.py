"""How text and tables are printed: on a screen of any width, into a file, and where there is nothing but ASCII."""

from __future__ import annotations

import codecs
import io
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from contrastive_sr.errors import printable

_WIDE = 1000
_FOLDED = 12  # letters of a word that may be broken
_AROUND = 2
_PLAIN = {"↑": "^", "↓": "v", "×": "x", "…": "...", "–": "-", "—": "-"}


class Screen(Console):
    """A console on which names of files can do no harm: control characters and bytes that are not UTF-8 are escaped."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **{**how, "emoji": False})


def for_tables(console: Console) -> Console:
    """The console itself if it is a screen or keeps a record; else, as files have no width, one that breaks no cell."""
    return console if console.is_terminal or console.record else Screen(file=console.file, width=_WIDE)


def fits(console: Console, table: Table) -> bool:
    """Whether a table can be read on a console, with at most its longest words broken."""
    return sum(map(_least_width, table.columns)) <= console.width


def show_table(console: Console, table: Table) -> None:
    """Print a table or, where the screen is too narrow for its columns, each row as a list.

    Args:
        console: where to print.
        table: of text, with the names of rows in its first column; an empty one is that above.
    """
    if fits(console, table):
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    heads = [str(column.header) for column in table.columns]
    above = ""
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        above = str(first) or above
        console.print(f"{heads[0]}: {above}" if heads[0] else above, highlight=False)
        for head, cell in zip(heads[1:], others, strict=True):
            if cell:
                console.print(Padding(f"{head}: {cell}" if head else str(cell), (0, 0, 0, 2)), highlight=False)
    if table.caption:
        console.print(table.caption)


def _least_width(column: Column) -> int:
    """What a column needs to be read: its longest word, or as much of it as may be folded, and the space around it."""
    texts = [Text.from_markup(str(cell)).plain for cell in (column.header, *column.cells)]
    words = texts if column.no_wrap else [word for text in texts for word in text.split()]
    longest = max(map(cell_len, words), default=0)
    return _AROUND + (min(longest, _FOLDED) if column.overflow == "fold" and not column.no_wrap else longest)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    wrong = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in wrong), error.end


def for_ascii(*streams: TextIO) -> None:
    """Let streams write the next best character in place of one that their encoding does not have.

    Args:
        streams: such as ``sys.stdout``.
    """
    codecs.register_error("contrastive_sr", _in_ascii)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="contrastive_sr")
