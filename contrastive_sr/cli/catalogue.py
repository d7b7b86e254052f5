"""`contrastive-sr list`: what there is to choose from."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contrastive_sr.cli.tables import for_tables, show_table

_NARROW = 120  # where two papers stand one below the other, at
_PAPER = 8


def print_catalogue(kind: str | None, console: Console) -> None:
    """Prints a table for each kind, and the papers that are named there.

    Args:
        kind: one kind alone, such as `embeddings`; None: all.
        console: where to print.

    Raises:
        ConfigError: no such kind.
    """
    from contrastive_sr.methods.catalogue import KINDS, PAPERS, find_kind

    console = for_tables(console)
    named = set()
    for name, shown in (KINDS if kind is None else {kind: find_kind(kind)}).items():
        console.print(f"[bold]{name}[/bold]: {escape(shown.place)}", highlight=False)
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="cyan")
        table.add_column(overflow="fold", max_width=_PAPER if console.width <= _NARROW else None)
        table.add_column(overflow="fold")
        for entry in shown.entries():
            table.add_row(escape(entry.name), escape(entry.paper) or "-", escape(entry.summary))
            named |= set(entry.paper.split(", "))
        show_table(console, table)
        console.print()
    papers = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    papers.add_column()
    papers.add_column(overflow="fold")
    for paper, title in PAPERS.items():
        if paper in named:
            papers.add_row(paper, title)
    if papers.row_count:
        show_table(console, papers)
