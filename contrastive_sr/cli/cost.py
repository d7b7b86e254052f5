"""`contrastive-sr cost`: what the SR networks of configs cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contrastive_sr.cli.tables import for_tables, show_table
from contrastive_sr.errors import ConfigError


def print_costs(files: Sequence[Path], size: str, console: Console) -> None:
    """Prints a table with a row for each file.

    Args:
        files: option files of BasicSR or configs of MMagic.
        size: of the LR image: `224`, or `320x180` (width x height).
        console: where to print.

    Raises:
        ConfigError: another form of size, or a file without an SR network.
        HostError: the host of a file is missing or broken.
    """
    from contrastive_sr.evaluation import cost
    from contrastive_sr.hosts.trained import network_of_config

    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", size)
    if match is None:
        raise ConfigError(f"--size: expected a number such as 224, or width x height such as 320x180, got {size!r}.")
    width = int(match[1])
    height = int(match[2] or width)
    table = Table(box=None, pad_edge=False, caption=f"for an LR image of {width} x {height}", caption_justify="left")
    for column in ("config", "network"):
        table.add_column(column, overflow="fold")
    for column in ("parameters (M)", "multiply-adds (G)"):
        table.add_column(column, justify="right")
    for file in files:
        network = network_of_config(file)
        counted = cost(network, height, width)
        table.add_row(
            escape(str(file)),
            type(network).__name__,
            f"{counted.parameters / 1e6:.2f}",
            f"{counted.multiply_adds / 1e9:.2f}",
        )
    show_table(for_tables(console), table)
