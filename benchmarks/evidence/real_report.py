"""Tables and plots of the study of real camera pairs, from the CSV alone; pictures from the crops beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table

from benchmarks.evidence.ledger import Row
from benchmarks.evidence.report import COLOURS, fair_step, finish, spread, write
from benchmarks.evidence.run import PICTURES

METRICS = {"psnr": "PSNR on Y, dB", "ssim": "SSIM on Y", "niqe": "NIQE (lower is better)"}
DECIMALS = {"psnr": 2, "ssim": 4, "niqe": 2}
CRITERIA_ARMS = {
    "plain": "plain model, L1",
    "sum": "sum of criteria",
    "align": "+ align",
    "uniformity": "+ uniformity",
    "both": "+ align + uniformity",
    "branches": "two branches, sum of criteria",
    "full": "two branches + align + uniformity",
}
NETWORK_ARMS = {
    "baseline": "neither",
    "cpb": "CPB",
    "mpfe": "MPFE",
    "mpfe_cpb": "MPFE, CPB (paper)",
}
REGULARIZATION_ARMS = {
    "1": "1: L1",
    "3": "3: positives made, negatives made",
    "5": "5: positives made + HR, negatives LR",
    "7": "7: positives made + HR, negatives made + LR (paper)",
}
ARMS: dict[str, Mapping[str, str]] = {
    "criteria": CRITERIA_ARMS,
    "network": NETWORK_ARMS,
    "regularization": REGULARIZATION_ARMS,
}
TITLES = {
    "criteria": "Cria-CL, Table V",
    "network": "MPF-Net, Table V: its two units",
    "regularization": "MPF-Net, Table VII: its regularization",
}
PAPER = {
    "criteria": {"plain": 24.82, "sum": 25.05, "align": 25.12, "uniformity": 25.76, "both": 25.92, "branches": 26.04}
    | {"full": 26.21},
    "network": {"baseline": 29.12, "cpb": 29.19, "mpfe": 29.37, "mpfe_cpb": 29.50},
    "regularization": {"1": 29.373, "3": 29.445, "5": 29.469, "7": 29.502},
}
"""PSNR in the papers' tables: other images, larger networks, VGG-19, far more steps."""
LEVEL = 0.01
Values = npt.NDArray[np.float64]


class Difference(NamedTuple):
    """An arm less the first arm of its part.

    Attributes:
        by_seed: mean over the images, a value a seed.
        p: of Wilcoxon's signed-rank test over the images, each the mean over the seeds.
    """

    by_seed: list[float]
    p: float

    @property
    def shows(self) -> bool:
        """Whether it shows on the images, and has one sign in all of at least three seeds."""
        signs = {value > 0 for value in self.by_seed}
        return self.p < LEVEL and len(signs) == 1 and len(self.by_seed) >= 3


def values_by_image(rows: Sequence[Row], arm: str, metric: str, step: int, seeds: Sequence[int]) -> Values:
    """(seeds, images) values of an arm at a step."""
    by_key = {
        (row.seed, row.figure): row.value
        for row in rows
        if row.arm == arm and row.step == step and row.figure.startswith(f"{metric}/")
    }
    figures = sorted({figure for _, figure in by_key})
    return np.array([[by_key[seed, figure] for figure in figures] for seed in seeds])


def difference(values: Values, base: Values) -> Difference:
    """See :class:`Difference`; both (seeds, images)."""
    from scipy.stats import wilcoxon

    gains = (values - base).mean(0)
    p = float(wilcoxon(gains).pvalue) if np.any(gains) else 1.0
    return Difference((values - base).mean(1).tolist(), p)


def tables(rows: Sequence[Row]) -> Iterator[Table | str]:
    """What is to be printed, part by part: tables, and lines with what they were measured on."""
    for part in ARMS:
        here = [row for row in rows if row.part == part]
        if here:
            yield _table(part, here)
            yield from (f"{words}\n" for words in dict.fromkeys(row.setting for row in here))


def _table(part: str, rows: Sequence[Row]) -> Table | str:
    arms = ARMS[part]
    step, seeds = fair_step(rows, part, list(arms))
    if not seeds:
        return f"{TITLES[part]}: not all arms have been measured at one step yet."
    first = next(iter(arms))
    table = Table(
        "",
        *(column for metric in METRICS for column in (METRICS[metric], f"to the first, {metric.upper()}")),
        "paper, PSNR",
        title=f"{TITLES[part]}\nat step {step:,}, mean ± standard deviation over {len(seeds)} seeds",
    )
    table.add_row("bicubic", *_cells_of_reference(rows))
    base = {metric: values_by_image(rows, first, metric, step, seeds) for metric in METRICS}
    for arm, name in arms.items():
        cells = []
        for metric, decimals in DECIMALS.items():
            values = values_by_image(rows, arm, metric, step, seeds)
            cells.append(spread(values.mean(1).tolist(), decimals))
            cells.append("-" if arm == first else _shown(difference(values, base[metric]), decimals))
        paper = PAPER[part][arm]
        gain = "" if arm == first else f", {paper - PAPER[part][first]:+.2f}"
        table.add_row(name, *cells, f"{paper:.2f}{gain}")
    return table


def _cells_of_reference(rows: Sequence[Row]) -> Iterator[str]:
    for metric, decimals in DECIMALS.items():
        values = [row.value for row in rows if row.step == 0 and row.figure.startswith(f"{metric}/")]
        yield f"{statistics.fmean(values):.{decimals}f}" if values else "-"
        yield "-"


def _shown(gain: Difference, decimals: int) -> str:
    verdict = "significant" if gain.shows else "n.s."
    return f"{statistics.fmean(gain.by_seed):+.{decimals}f}, p {gain.p:.1g}, {verdict}"


def save_plots(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draws, for each part that has something to show, the differences, and a picture if crops are there."""
    written = []
    for part, arms in ARMS.items():
        here = [row for row in rows if row.part == part]
        step, seeds = fair_step(here, part, list(arms))
        if seeds:
            written.append(_save_differences(part, here, step, seeds, out))
            written += _save_crops(part, step, out)
    return written


def _save_differences(part: str, rows: Sequence[Row], step: int, seeds: Sequence[int], out: Path) -> Path:
    from matplotlib.figure import Figure

    arms = ARMS[part]
    first, *others = arms
    figure = Figure(figsize=(13, 4), dpi=120, layout="constrained")
    for axis, (metric, title) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        base = values_by_image(rows, first, metric, step, seeds)
        for place, arm in enumerate(others):
            gains = (values_by_image(rows, arm, metric, step, seeds) - base).mean(1)
            axis.plot([place] * len(gains), gains, "o", markersize=5, alpha=0.6, color=COLOURS[0])
            axis.plot([place - 0.25, place + 0.25], [gains.mean()] * 2, color=COLOURS[1], linewidth=2)
        axis.axhline(0, color="#777777", linewidth=1)
        axis.set_xticks(range(len(others)), others, rotation=30)
        finish(axis, f"{title}: difference to {first!r}", "")
    figure.suptitle(f"{TITLES[part]}, step {step:,}; a point for each seed")
    return write(figure, out / f"{part}.png")


def _save_crops(part: str, step: int, out: Path) -> list[Path]:
    """Crops of HR, bicubic and the arms of seed 0, side by side."""
    from PIL import Image

    from contrastive_sr.evaluation.plots import save_crops

    folder = out / PICTURES
    columns = {"HR": "hr-0", "bicubic": "bicubic-0"} | {arm: f"{arm}-{step}" for arm in ARMS[part]}
    names = sorted(path.stem.split("-", 3)[3] for path in folder.glob(f"{part}-hr-0-*.png"))
    crops = []
    for name in names:
        files = {label: folder / f"{part}-{column}-{name}.png" for label, column in columns.items()}
        if not all(file.is_file() for file in files.values()):
            return []
        images = {label: np.asarray(Image.open(file)) for label, file in files.items()}
        height, width = images["HR"].shape[:2]
        crops.append((name, (0, 0, width, height), images))
    if not crops:
        return []
    save_crops(out / f"{part}_crops.png", crops, "HR")
    return [out / f"{part}_crops.png"]
