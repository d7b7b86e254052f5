"""`contrastive-sr compare`: the curves of several trainings in one figure, and where each of them ended."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contrastive_sr.cli.pictures import check_picture, needs_plot
from contrastive_sr.cli.tables import for_tables
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.logs import PIXEL, RunLog, read_run

_LOWER_IS_BETTER = ("MAE", "MSE", "NIQE", "LPIPS", "FID", "DISTS")
_SUMS = ("loss", "loss_contrastive")  # in MMagic, of terms that are logged by themselves


def compare_runs(
    folders: Sequence[Path], out: Path, *, keys: Sequence[str] | None, smooth: int, console: Console
) -> None:
    """Draws the curves of trainings, and prints a table of them.

    Args:
        folders: as `read_run` takes them, of either host.
        out: the picture to write.
        keys: what to draw. None: what was validated, and the losses without their weights.
        smooth: how many logged values of the training the mean is taken of, for each point.
        console: where the tables go.

    Raises:
        ConfigError: no such key, one run twice, or a picture that cannot be written.
        DataError: a folder without logs.
        HostError: matplotlib is not installed.
    """
    with needs_plot():
        from contrastive_sr.evaluation.figures import Panel, save_curves, smoothed
    check_picture(out)
    names = _names(folders)
    runs = {name: read_run(folder) for name, folder in zip(names, folders, strict=True)}
    chosen = _chosen(runs, keys)
    colours = {name: number for number, name in enumerate(runs)}
    panels = []
    for key in chosen:
        lines = {}
        for name, run in runs.items():
            if key in run.validation:
                lines[name] = run.validation[key]
            elif key in run.training:
                lines[name] = smoothed(run.training[key], smooth)
        panels.append(Panel(key, lines, colours=colours, overlap=True))
    mean = f", training: mean of {smooth} logged values" if smooth > 1 else ""
    save_curves(out, panels, f"{', '.join(runs)}{mean}" if len(runs) < 4 else f"{len(runs)} trainings{mean}")
    _print(runs, for_tables(console))
    console.print(f"Written: {out}", soft_wrap=True)


def _names(folders: Sequence[Path]) -> list[str]:
    """Each run by the end of its path, as long as it takes to tell it from the others."""
    paths = [folder.absolute() for folder in folders]
    if twice := [str(folder) for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1]:
        raise ConfigError(f"Expected different trainings, got {twice[0]} twice. Take one of the two out.")
    names = []
    for path in paths:
        length = next(
            n for n in range(1, len(path.parts) + 1) if sum(p.parts[-n:] == path.parts[-n:] for p in paths) == 1
        )
        names.append(str(Path(*path.parts[-length:])))
    return names


def _chosen(runs: Mapping[str, RunLog], keys: Sequence[str] | None) -> list[str]:
    """The keys to draw, in the spelling of the logs."""
    validated = list(dict.fromkeys(key for run in runs.values() for key in run.validation))
    every = dict.fromkeys(key for run in runs.values() for key in run.training)
    trained = sorted(every, key=lambda key: key != PIXEL)  # the one that all have comes first
    if not keys:
        return [*validated, *(key for key in trained if _is_loss(key, trained))]
    found = {key.lower(): key for key in [*trained, *validated]}
    found.update({"l_pix": PIXEL, "l_g_pix": PIXEL} if PIXEL in trained else {})
    for key in keys:
        if key.lower() not in found:
            close = difflib.get_close_matches(key.lower(), found, n=1)
            guess = f" Did you mean {found[close[0]]!r}?" if close else ""
            raise ConfigError(
                f"--keys: the logs do not have {key!r}.{guess} There are {', '.join([*validated, *trained])}."
            )
    return list(dict.fromkeys(found[key.lower()] for key in keys))


def _is_loss(key: str, keys: Sequence[str]) -> bool:
    """Whether to draw it if nothing is asked for: each loss once, and a method's term without its weight."""
    if key.endswith("_raw"):
        return True
    loss = key.startswith(("loss", "l_")) or key.endswith("_discriminator")
    return loss and f"{key}_raw" not in keys and (key not in _SUMS or len(keys) == 1)


def _print(runs: Mapping[str, RunLog], console: Console) -> None:
    metrics = list(dict.fromkeys(key for run in runs.values() for key in run.validation))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    for column in ("steps", *metrics, *(f"best {metric}" for metric in metrics), "time", "s / step"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, run in runs.items():
        steps = str(run.step) if run.total in (None, run.step) else f"{run.step} of {run.total}"
        last = [_number(run.validation[key][-1][1]) if key in run.validation else "-" for key in metrics]
        per_step = run.seconds_per_step
        table.add_row(
            name,
            steps,
            *last,
            *(_best(run, metric) for metric in metrics),
            _duration(run.seconds),
            "-" if per_step is None else f"{per_step:.3f}",
        )
    console.print(table)
    console.print()
    every = dict.fromkeys(key for run in runs.values() for key in run.training)
    terms = sorted(every, key=lambda key: key != PIXEL)
    if terms:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("last logged value", no_wrap=True)
        for name in runs:
            table.add_column(name, justify="right", overflow="fold")
        for key in terms:
            row = [f"{run.training[key][-1][1]:.4g}" if key in run.training else "-" for run in runs.values()]
            table.add_row(key, *row)
        console.print(table)
        console.print()
    if silent := [name for name, run in runs.items() if not run.validation]:
        console.print(f"Not validated so far: {', '.join(silent)}", soft_wrap=True)


def _best(run: RunLog, metric: str) -> str:
    """The best value and its step; the first of equal ones."""
    if metric not in run.validation:
        return "-"
    lower = any(part in metric.upper() for part in _LOWER_IS_BETTER)
    step, value = (min if lower else max)(run.validation[metric], key=lambda point: point[1])
    return f"{_number(value)} @ {step}"


def _number(value: float) -> str:
    """PSNR with two digits behind the point, SSIM with four."""
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
