"""``python -m benchmarks``: contrastive step, samples, degradations; ``python -m benchmarks nce``: contrast over M;
``python -m benchmarks layout``: SR networks in channels_last; ``python -m benchmarks memory``: whether memory stays
flat."""

from __future__ import annotations

import itertools
import platform
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import degradations, layout, memory, nce, pcl
from contrastive_sr.errors import ConfigError

app = typer.Typer(add_completion=False, help="Speed and memory as ratios measured in one process.")


def _title() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU, one thread"
    return f"torch {torch.__version__}, {device}"


@app.callback(invoke_without_command=True)
def steps(context: typer.Context) -> None:
    """PCL-SR's contrastive step, the samples and the degradations, each figure with its goal."""
    if context.invoked_subcommand is not None:
        return
    console = Console()
    table = Table("figure", "goal", "measured", title=_title())
    with console.status("measuring ...") as status:
        for row in itertools.chain(pcl.report(), degradations.report()):
            table.add_row(*row)
            status.update(f"measuring ... {row[0]}: {row[2]}")
    console.print(table)


@app.command("nce")
def contrast(
    sizes: Annotated[
        list[int] | None, typer.Option("--size", help="One M; may be given often. Default: all six.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for nce.csv and nce.png.")] = Path("bench"),
) -> None:
    """The contrast over M positions: time, memory and exactness, beside a dense matrix and other libraries."""
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=max(130, Console().width))
    for name, case in nce.CASES.items():
        if case.missing:
            console.print(f"left out: {name}, which needs {case.needs}; pip install '.[bench]', or a newer torch")
    table = Table("M", "", "time / bound", "dense / it", "MiB added", "gradient error", title=_title())
    rows: list[nce.Row] = []
    with console.status("measuring ...") as status:
        for row in nce.measure(sizes or nce.SIZES):
            if rows and rows[-1].m != row.m:
                table.add_section()
            rows.append(row)
            table.add_row(
                f"{row.m:,}",
                row.case,
                f"{row.bound:.2f}",
                "-" if row.dense is None else f"{row.dense:.2f}",
                f"{row.extra_mib:,.0f}",
                "-" if row.gradient_error is None else f"{row.gradient_error:.1e}",
            )
            nce.write_csv(rows, out / "nce.csv")
            status.update(f"measuring ... M = {row.m:,}, {row.case}: {row.bound:.2f} x bound")
    console.print(table)
    nce.plot(rows, out / "nce.png")
    console.print(f"Written: {out / 'nce.csv'} and {out / 'nce.png'}")


@app.command("layout")
def layouts(
    patch: Annotated[int, typer.Option(min=8, help="Side of the LR patch, in pixels.")] = 48,
) -> None:
    """A training step of SR networks in PyTorch's default layout, divided by one in channels_last."""
    console = Console()
    table = Table("network", "default / channels_last", title=_title())
    with console.status("measuring ..."):
        for name, ratio in layout.report(patch):
            table.add_row(name, f"{ratio:.2f}")
    console.print(table)


@app.command("memory")
def flat_memory(
    steps: Annotated[int, typer.Option(min=10, help="Of each method; the first tenth is the warm-up.")] = 2000,
    method: Annotated[list[str] | None, typer.Option(help="One method; may be given often. Default: all.")] = None,
) -> None:
    """Resident memory of a long training with each method: after the warm-up, and at its end."""
    console = Console()
    table = Table("method", "MiB after warm-up", "MiB at the end", "growth", title=f"{steps:,} steps; {_title()}")
    try:
        with console.status("training ...") as status:
            for row in memory.measure(steps, method):
                table.add_row(row.method, f"{row.warm:.1f}", f"{row.end:.1f}", f"{row.growth:+.2f} %")
                status.update(f"training ... {row.method}: {row.growth:+.2f} %")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    console.print(table)


if __name__ == "__main__":
    app()
