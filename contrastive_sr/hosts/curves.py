"""The curves of several trainings: which to draw, and the best value of each metric; needs matplotlib."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation.naming import labels
from contrastive_sr.evaluation.plots import Panel, smoothed
from contrastive_sr.hosts.logs import PIXEL, RunLog, read_run

_LOWER_IS_BETTER = ("MAE", "MSE", "NIQE", "LPIPS", "FID", "DISTS", "PATTERN", "JAGGEDNESS")
_METRICS = {"PSNR": ("PSNR", "dB"), "PATTERN": ("periodic dots beyond those of HR (PATTERN)", "grey levels")}
_LOSSES = {PIXEL: "pixel loss", "loss": "sum of the losses", "lr": "learning rate"}
_ENDINGS = {
    "_raw": ", unweighted",
    "_weight": ", its weight",
    "_share": ", ratio of its gradient to the pixel loss's",
    "_discriminator": " discriminator, its own loss",
}
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
        lines, steps = {}, {}
        for name, run in runs.items():
            if key in run.validation:
                lines[name] = run.validation[key]
            elif key in run.training:
                lines[name] = smoothed(run.training[key], smooth)
                window = run.window if "loss" in key else 1
                steps[name] = "single steps" if window == 1 else f"means of {window} steps"
        title, unit = in_words(key)
        names = {}
        if len(set(steps.values())) > 1:
            names = {name: f"{name}, {words}" for name, words in steps.items()}
        elif steps:
            unit = next(iter(steps.values()))
        if any(math.isfinite(value) for line in lines.values() for _, value in line):
            panels.append(Panel(title, lines, colours=colours, overlap=True, names=names, y=unit))
    if not panels:
        raise ConfigError("Expected a number that can be drawn, but the logs have NaN or infinity alone.")
    return panels


def in_words(key: str) -> tuple[str, str]:
    """What a key of a log is, with the key itself where that is another word, and its unit.

    Example:
        >>> in_words("Set5/PSNR"), in_words("pcl_contrastive_raw")
        (('Set5: PSNR', 'dB'), ('pcl contrastive, unweighted (pcl_contrastive_raw)', ''))
    """
    data, slash, metric = key.rpartition("/")
    if metric in _METRICS or slash:
        words, unit = _METRICS.get(metric, (metric, ""))
        return (f"{data}: {words}" if data else words), unit
    if key in _LOSSES:
        return f"{_LOSSES[key]} ({key})", ""
    for ending, words in _ENDINGS.items():
        if key.endswith(ending):
            return f"{key.removesuffix(ending).replace('_', ' ')}{words} ({key})", ""
    return key, ""


def trained_keys(runs: Mapping[str, RunLog]) -> list[str]:
    """What was logged in the training of any run, the pixel loss first."""
    return sorted(dict.fromkeys(key for run in runs.values() for key in run.training), key=lambda key: key != PIXEL)


def validated_keys(runs: Mapping[str, RunLog]) -> list[str]:
    """The metrics that were validated in any run."""
    return list(dict.fromkeys(key for run in runs.values() for key in run.validation))


def best(points: Sequence[tuple[int, float]], metric: str) -> tuple[int, float]:
    """Step and value of the best point; the first of equal ones, and one that is NaN only if all are.

    Args:
        points: (step, value), at least one.
        metric: its name, which decides whether lower is better.

    Example:
        >>> best([(10, 25.0), (20, 26.0), (30, 26.0)], "PSNR"), best([(10, 5.0), (20, 6.0)], "NIQE")
        ((20, 26.0), (10, 5.0))
    """
    lower = any(part in metric.upper() for part in _LOWER_IS_BETTER)
    numbers = [point for point in points if not math.isnan(point[1])]
    return (min if lower else max)(numbers or points, key=lambda point: point[1])


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
