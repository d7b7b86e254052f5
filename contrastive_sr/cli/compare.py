"""`contrastive-sr compare`: the curves of several trainings in one figure, and where each of them ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contrastive_sr.cli.outputs import check_picture, needs_plot
from contrastive_sr.cli.tables import for_tables, show_table

if TYPE_CHECKING:
    from contrastive_sr.hosts.logs import RunLog


def compare_runs(
    folders: Sequence[Path], out: Path, *, keys: Sequence[str] | None, smooth: int, console: Console
) -> None:
    """Draws the curves of trainings, and prints a table of them.

    Args:
        folders: as `read_run` takes them, of either host.
        out: the picture to write.
        keys: what to draw. None: what was validated, and the losses without their weights.
        smooth: of how many logged values of the training the mean is taken, for each point.
        console: where the tables go.

    Raises:
        ConfigError: no such key, one run twice, or a picture that cannot be written.
        DataError: a folder without logs.
        HostError: matplotlib is not installed.
    """
    with needs_plot():
        from contrastive_sr.evaluation.plots import save_curves
        from contrastive_sr.hosts.curves import panels_of, read_runs
    check_picture(out)
    runs = read_runs(folders)
    panels = panels_of(runs, keys, smooth)
    mean = f", training: mean of {smooth} logged values" if smooth > 1 else ""
    save_curves(out, panels, f"{', '.join(runs)}{mean}" if len(runs) < 4 else f"{len(runs)} trainings{mean}")
    _print(runs, for_tables(console))
    console.print(f"Written: {out}", soft_wrap=True, markup=False)


def _print(runs: Mapping[str, RunLog], console: Console) -> None:
    from contrastive_sr.hosts.curves import best, trained_keys, validated_keys

    metrics = validated_keys(runs)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    for column in ("steps", *metrics, *(f"best {metric}" for metric in metrics), "time", "s / step"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, run in runs.items():
        steps = str(run.step) if run.total in (None, run.step) else f"{run.step} of {run.total}"
        last = [_number(run.validation[key][-1][1]) if key in run.validation else "-" for key in metrics]
        points = [best(run.validation[key], key) if key in run.validation else None for key in metrics]
        per_step = run.seconds_per_step
        table.add_row(
            escape(name),
            steps,
            *last,
            *("-" if point is None else f"{_number(point[1])} @ {point[0]}" for point in points),
            _duration(run.seconds),
            "-" if per_step is None else f"{per_step:.3f}",
        )
    show_table(console, table)
    console.print()
    terms = trained_keys(runs)
    if terms:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("last logged value", no_wrap=True)
        for name in runs:
            table.add_column(escape(name), justify="right", overflow="fold")
        for key in terms:
            row = [f"{run.training[key][-1][1]:.4g}" if key in run.training else "-" for run in runs.values()]
            table.add_row(escape(key), *row)
        show_table(console, table)
        console.print()
    if silent := [name for name, run in runs.items() if not run.validation]:
        console.print(f"Not validated so far: {', '.join(silent)}", soft_wrap=True, markup=False)


def _number(value: float) -> str:
    """PSNR with two digits behind the point, SSIM with four."""
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
