"""The curves of several trainings: which to draw, and the best value of each metric; needs matplotlib."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation.naming import labels
from contrastive_sr.evaluation.plots import Panel, smoothed
from contrastive_sr.hosts.logs import PIXEL, RunLog, read_run

_LOWER_IS_BETTER = ("MAE", "MSE", "NIQE", "LPIPS", "FID", "DISTS", "PATTERN")
_SUMS = ("loss", "loss_contrastive")  # in MMagic, of terms that are logged by themselves


def read_runs(folders: Sequence[Path]) -> dict[str, RunLog]:
    """The logs of trainings, by the shortest ends of their paths that tell them apart.

    Args:
        folders: as :func:`~contrastive_sr.hosts.logs.read_run` takes them, of either host.

    Raises:
        ConfigError: one run twice.
        DataError: a folder without logs.
    """
    paths = [folder.absolute() for folder in folders]
    if twice := [str(folder) for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1]:
        raise ConfigError(f"Expected different trainings, got {twice[0]} twice. Take one of the two out.")
    names = labels([(None, path) for path in paths], lambda path: (path.parts[1:], 1))
    return {name: read_run(folder) for name, folder in zip(names, folders, strict=True)}


def panels_of(runs: Mapping[str, RunLog], keys: Sequence[str] | None = None, smooth: int = 1) -> list[Panel]:
    """A plot for each key, with a line for each run.

    Args:
        runs: by name.
        keys: what to draw, in upper or lower case. None: what was validated, and the losses without their weights.
        smooth: of how many logged values of the training the mean is taken, for each point.

    Raises:
        ConfigError: a key that no run has.
    """
    colours = {name: number for number, name in enumerate(runs)}
    panels = []
    for key in _chosen(runs, keys):
        lines = {}
        for name, run in runs.items():
            if key in run.validation:
                lines[name] = run.validation[key]
            elif key in run.training:
                lines[name] = smoothed(run.training[key], smooth)
        panels.append(Panel(key, lines, colours=colours, overlap=True))
    return panels


def trained_keys(runs: Mapping[str, RunLog]) -> list[str]:
    """What was logged in the training of any run, the pixel loss first."""
    return sorted(dict.fromkeys(key for run in runs.values() for key in run.training), key=lambda key: key != PIXEL)


def validated_keys(runs: Mapping[str, RunLog]) -> list[str]:
    """The metrics that were validated in any run."""
    return list(dict.fromkeys(key for run in runs.values() for key in run.validation))


def best(points: Sequence[tuple[int, float]], metric: str) -> tuple[int, float]:
    """Step and value of the best point; the first of equal ones.

    Args:
        points: (step, value), at least one.
        metric: its name, which decides whether lower is better.

    Example:
        >>> best([(10, 25.0), (20, 26.0), (30, 26.0)], "PSNR"), best([(10, 5.0), (20, 6.0)], "NIQE")
        ((20, 26.0), (10, 5.0))
    """
    lower = any(part in metric.upper() for part in _LOWER_IS_BETTER)
    return (min if lower else max)(points, key=lambda point: point[1])


def _chosen(runs: Mapping[str, RunLog], keys: Sequence[str] | None) -> list[str]:
    """The keys to draw, in the spelling of the logs."""
    validated, trained = validated_keys(runs), trained_keys(runs)
    if not keys:
        return [*validated, *(key for key in trained if _is_loss(key, trained))]
    spelling = {key.lower(): key for key in [*trained, *validated]}
    spelling.update({"l_pix": PIXEL, "l_g_pix": PIXEL} if PIXEL in trained else {})
    for key in keys:
        if key.lower() not in spelling:
            close = difflib.get_close_matches(key.lower(), spelling, n=1)
            guess = f" Did you mean {spelling[close[0]]!r}?" if close else ""
            raise ConfigError(
                f"--keys: the logs do not have {key!r}.{guess} There are {', '.join([*validated, *trained])}."
            )
    return list(dict.fromkeys(spelling[key.lower()] for key in keys))


def _is_loss(key: str, keys: Sequence[str]) -> bool:
    """Whether to draw it if nothing is asked for: each loss once, and a method's term without its weight."""
    if key.endswith("_raw"):
        return True
    loss = key.startswith(("loss", "l_")) or key.endswith("_discriminator")
    return loss and f"{key}_raw" not in keys and (key not in _SUMS or len(keys) == 1)
