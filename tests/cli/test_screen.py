"""The screen: names of files can do no harm there, and no encoding ends a command."""

from __future__ import annotations

import io
import sys

import pytest
from rich.markup import escape
from rich.table import Table

from contrastive_sr.cli.tables import Screen, for_ascii, for_tables

NAME = "\x1b[2J\x07[red]caf\udce9 \u202etxt\x9b\r.png"
SHOWN = r"\x1b[2J\x07[red]caf\udce9 \u202etxt\x9b\r.png"


def test_names_are_shown_and_not_obeyed() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    screen = Screen(file=stream, force_terminal=True, width=200)
    screen.print(f"Written: {NAME}\nand more", style="bold", markup=False, soft_wrap=True, highlight=False)
    table = Table()
    table.add_column("name")
    table.add_row(escape(NAME))
    for_tables(Screen(file=stream)).print(table)
    stream.flush()
    text = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    first, second, *rows = text.splitlines()
    assert first == f"\x1b[1mWritten: {SHOWN}\x1b[0m"  # what is rich's own stays
    assert "and more" in second
    assert any(SHOWN in row for row in rows)


def test_what_the_encoding_does_not_have_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    for_ascii(sys.stdout, sys.stderr)
    Screen().print("PSNR \u2191")
    Screen(stderr=True).print("caf\xe9")
    for stream in streams.values():
        stream.flush()
    assert streams["stdout"].buffer.getvalue() == b"PSNR ^\n"  # type: ignore[attr-defined]
    assert streams["stderr"].buffer.getvalue() == b"caf?\n"  # type: ignore[attr-defined]
