"""``python -m benchmarks``: every figure with its goal."""

from __future__ import annotations

import platform

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import pcl


def main() -> None:
    """Measure and print."""
    console = Console()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU, one thread"
    table = Table("figure", "goal", "measured", title=f"torch {torch.__version__}, {device}")
    with console.status("measuring ...") as status:
        for row in pcl.report():
            table.add_row(*row)
            status.update(f"measuring ... {row[0]}: {row[2]}")
    console.print(table)


if __name__ == "__main__":
    main()
