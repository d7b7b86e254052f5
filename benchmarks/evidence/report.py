"""What the reports of all studies share: where arms can be compared, spreads, verdicts, and how a plot looks."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.evidence.ledger import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")


def fair_step(rows: Sequence[Row], part: str, every: Sequence[str]) -> tuple[int, list[int]]:
    """Where the arms of a part can be compared: most seeds that all arms have there, and of such steps the last.

    Args:
        rows: what was measured.
        part: the part's name.
        every: its arms.

    Returns:
        The step and the seeds; no seeds if not all arms have been measured at one step.
    """
    there: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row.part == part:
            there[row.step][row.seed].add(row.arm)
    whole = {step: sorted(seed for seed, arms in seeds.items() if arms >= set(every)) for step, seeds in there.items()}
    step = max(whole, key=lambda step: (len(whole[step]), step), default=0)
    return step, whole.get(step, [])


def spread(values: Sequence[float], decimals: int = 2) -> str:
    """Mean and standard deviation of one figure over seeds."""
    shown = f"{statistics.fmean(values):.{decimals}f}"
    return f"{shown} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else shown


def verdict(differences: Sequence[float]) -> str:
    """Whether a difference, one a seed, shows: by a two-sided t-test at 5 %."""
    from scipy.stats import t

    mean = statistics.fmean(differences)
    if len(differences) < 3:
        return f"{mean:+.3f}, too few seeds to say"
    limit = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    shown = "a gain" if mean > limit else "a loss" if mean < -limit else "n.s."
    return f"{mean:+.3f} ± {statistics.stdev(differences):.3f}, {shown}"


def folders_of(rows: Sequence[Row]) -> list[str]:
    """The test folders, from figures such as ``psnr/Set14``."""
    return list(dict.fromkeys(row.figure.split("/")[1] for row in rows))


def values_at(rows: Sequence[Row], step: int, seeds: Sequence[int], figure: str) -> dict[str, list[float]]:
    """The values of a figure by arm, in the order of the seeds; of the reference the one there is."""
    by_key = {(r.arm, r.seed): r.value for r in rows if r.step == step and r.figure == figure}
    arms = dict.fromkeys(row.arm for row in rows if row.step)
    reference = {r.arm: [r.value] for r in rows if r.step == 0 and r.figure == figure}
    return {**reference, **{arm: [by_key[arm, seed] for seed in seeds] for arm in arms}}


def finish(axis: Axes, title: str, xlabel: str) -> None:
    """Title, label, a light grid, no frame."""
    axis.set(title=title, xlabel=xlabel)
    axis.grid(alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def write(figure: Figure, path: Path) -> Path:
    """Save; returns the file."""
    figure.savefig(path)
    return path
