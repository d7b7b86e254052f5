"""``python -m benchmarks``: contrastive step, samples, degradations; ``python -m benchmarks nce``: contrast over M;
``python -m benchmarks memory``: whether memory stays flat; ``python -m benchmarks evidence-blind``: DASR and CRL-SR on
real images; ``evidence-real``: Cria-CL and MPF-Net on real pairs."""

from __future__ import annotations

import itertools
import platform
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import degradations, memory, nce, pcl
from contrastive_sr.errors import ConfigError, ContrastiveSRError

if TYPE_CHECKING:
    from benchmarks.evidence.training import Report, Study

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


class Part(str, Enum):
    """A part of the evidence."""

    encoder = "encoder"
    crl = "crl"
    dasr = "dasr"


class Scale(str, Enum):
    """How large the networks are."""

    small = "small"
    large = "large"


@app.command("evidence-blind")
def evidence_blind(
    out: Annotated[Path, typer.Option(help="Folder for evidence.csv, plots, and the state of each training.")],
    train: Annotated[
        list[Path] | None, typer.Option(help="Folder of HR images to train on; may be given often.")
    ] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Folder of HR images to test on; may be given often.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="When to stop; a later call goes on.")] = 60.0,
    part: Annotated[
        list[Part] | None, typer.Option(help="What to run; may be given often. Default: all, in turns.")
    ] = None,
    size: Annotated[
        Scale | None, typer.Option(help="Networks, batches and steps. Default: large on a GPU, small on a CPU.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print and draw what is in the CSV, and run nothing.")
    ] = False,
) -> None:
    """DASR and CRL-SR on real images: (a) encoder: what an encoder knows of the degradation, by how it was trained;
    (b) crl: CRL-SR's six models; (c) dasr: DASR with and without contrast, over kernel widths."""
    from benchmarks.evidence import blind, blind_report

    def study() -> Study:
        device, name = _device_and_size(size)
        return blind.blind_study(train or [], test or [], name, blind.SIZES[name], device)

    _evidence(out, None if report else study, blind_report, minutes, [choice.value for choice in part or Part])


class RealPart(str, Enum):
    """A part of the evidence on real pairs."""

    criteria = "criteria"
    network = "network"
    regularization = "regularization"


@app.command("evidence-real")
def evidence_real(
    out: Annotated[Path, typer.Option(help="Folder for evidence.csv, plots, and the state of each training.")],
    train: Annotated[Path | None, typer.Option(help="Folder with HR and LR, real x4 pairs, to train on.")] = None,
    test: Annotated[Path | None, typer.Option(help="Folder with HR and LR to test on.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="When to stop; a later call goes on.")] = 60.0,
    part: Annotated[
        list[RealPart] | None, typer.Option(help="What to run; may be given often. Default: all, in turns.")
    ] = None,
    size: Annotated[
        Scale | None, typer.Option(help="Networks, batches and steps. Default: large on a GPU, small on a CPU.")
    ] = None,
    vgg: Annotated[
        str | None,
        typer.Option(help="Weights of VGG-19 for Cria-CL: torchvision, timm or a file. Default: rows without it."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print and draw what is in the CSV, and run nothing.")
    ] = False,
) -> None:
    """Cria-CL and MPF-Net on real camera pairs: (a) criteria: Cria-CL's Table V; (b) network: MPF-Net's Table V;
    (c) regularization: its Table VII."""
    from benchmarks.evidence import real_report

    def study() -> Study:
        from benchmarks.evidence import real

        if train is None or test is None:
            raise ConfigError("Expected folders with HR and LR, --train DIR and --test DIR; --report needs none.")
        device, name = _device_and_size(size)
        return real.real_study(train, test, name, real.SIZES[name], device, vgg)

    _evidence(out, None if report else study, real_report, minutes, [choice.value for choice in part or RealPart])


def _device_and_size(size: Scale | None) -> tuple[torch.device, str]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device, size.value if size else "large" if device.type == "cuda" else "small"


def _evidence(
    out: Path, study: Callable[[], Study] | None, report: Report, minutes: float, parts: Sequence[str]
) -> None:
    from benchmarks.evidence.command import run_evidence

    console = Console(width=max(130, Console().width))
    try:
        run_evidence(out, study, report, minutes, parts, console)
    except ContrastiveSRError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from what was saved last, a minute ago at most.")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
