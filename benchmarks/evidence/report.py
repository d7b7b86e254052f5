"""Tables and plots of what was measured, from the CSV alone."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.evidence.ledger import Row
from benchmarks.evidence.training import ARMS, REFERENCES, WIDTHS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "encoder": "(a) what the encoder knows of the kernel width, on unseen images",
    "crl": "(b) CRL-SR, the six models of Table 1: PSNR on Y, spatially variant degradation",
    "dasr": "(c) DASR with and without contrast: PSNR on Y by kernel width",
}
NAMES = {
    "random": "random encoder",
    "bicubic": "bicubic",
    "same_image": "contrast, same image (paper)",
    "same_degradation": "contrast, same degradation (ours)",
    "sr_loss": "SR loss alone",
    "supervised": "told the width (upper bound)",
    "without": "without contrast",
    "a": "a: neither",
    "b": "b: SRNCE",
    "c": "c: InfoNCE",
    "d": "d: decoupling",
    "e": "e: decoupling, InfoNCE",
    "f": "f: decoupling, SRNCE (paper)",
}
CRL_PAPER = {"a": 23.62, "b": 24.11, "c": 23.87, "d": 24.08, "e": 24.14, "f": 24.31}
"""Table 1 of CRL-SR: Set14, a larger network and far more steps."""
DASR_PAPER = {"without": (28.46, 28.40, 28.30, 27.77, 26.79), "same_image": (28.50, 28.45, 28.40, 28.16, 27.58)}
"""Models 1 and 4 of DASR's Table 1: Set14, the whole network and far more steps."""

_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")


def fair_step(rows: Sequence[Row], part: str) -> tuple[int, list[int]]:
    """Where the arms of a part can be compared: most seeds that all arms have there, and of such steps the last.

    Returns:
        The step and the seeds; no seeds if not all arms have been measured at one step.
    """
    there: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row.part == part:
            there[row.step][row.seed].add(row.arm)
    whole = {
        step: sorted(seed for seed, arms in seeds.items() if arms >= set(ARMS[part])) for step, seeds in there.items()
    }
    step = max(whole, key=lambda step: (len(whole[step]), step), default=0)
    return step, whole.get(step, [])


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of one figure over seeds."""
    mean = statistics.fmean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"


def verdict(differences: Sequence[float]) -> str:
    """Whether a difference, one a seed, shows: twice its standard error is the limit."""
    mean = statistics.fmean(differences)
    if len(differences) < 3:
        return f"{mean:+.3f}, too few seeds to say"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    shown = "a gain" if mean > 2 * error else "a loss" if mean < -2 * error else "does not show"
    return f"{mean:+.3f} ± {statistics.stdev(differences):.3f}, {shown}"


def tables(rows: Sequence[Row]) -> Iterator[Table | str]:
    """What is to be printed, part by part: tables, and lines with what they were measured on."""
    for part in ARMS:
        here = [row for row in rows if row.part == part]
        if here:
            yield from {"encoder": _encoder, "crl": _crl, "dasr": _dasr}[part](here)
            yield from (f"{words}\n" for words in dict.fromkeys(row.setting for row in here))


def _encoder(rows: Sequence[Row]) -> Iterator[Table | str]:
    steps = sorted({row.step for row in rows if row.step})
    seeds = len({row.seed for row in rows})
    table = Table(
        "encoder",
        *(f"{step:,}" for step in steps),
        title=f"{TITLES['encoder']}\nkNN accuracy of 5 widths (0.20: guessing) / R² of a linear probe, by step",
    )
    for arm in (REFERENCES["encoder"], *ARMS["encoder"]):
        cells = []
        # a random encoder is the same at every step; it is shown at the first
        for step in [0] if arm == REFERENCES["encoder"] else steps:
            knn, r2 = (
                [r.value for r in rows if (r.arm, r.step, r.figure) == (arm, step, name)] for name in ("knn", "r2")
            )
            cells.append(f"{statistics.fmean(knn):.2f} / {statistics.fmean(r2):.2f}" if knn else "-")
        table.add_row(NAMES[arm], *cells)
    yield table
    if seeds > 1:
        yield f"Means over {seeds} seeds, as far as they have come."


def _folders(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.figure.split("/")[1] for row in rows))


def _at(rows: Sequence[Row], step: int, seeds: Sequence[int], figure: str) -> dict[str, list[float]]:
    """The values of a figure by arm, in the order of the seeds; of the reference the one there is."""
    by_key = {(r.arm, r.seed): r.value for r in rows if r.step == step and r.figure == figure}
    arms = dict.fromkeys(row.arm for row in rows if row.step)
    reference = {r.arm: [r.value] for r in rows if r.step == 0 and r.figure == figure}
    return {**reference, **{arm: [by_key[arm, seed] for seed in seeds] for arm in arms}}


def _crl(rows: Sequence[Row]) -> Iterator[Table | str]:
    step, seeds = fair_step(rows, "crl")
    if not seeds:
        yield f"{TITLES['crl']}: not all six models have been measured at one step yet."
        return
    folders = _folders(rows)
    table = Table(
        "model",
        *(column for folder in folders for column in (folder, f"{folder}, to a")),
        "paper, Set14",
        title=f"{TITLES['crl']}\nat step {step:,}, mean ± standard deviation over {len(seeds)} seeds",
    )
    found = {folder: _at(rows, step, seeds, f"psnr/{folder}") for folder in folders}
    reference = REFERENCES["crl"]
    if all(reference in values for values in found.values()):
        table.add_row(NAMES[reference], *(cell for v in found.values() for cell in (spread(v[reference]), "-")), "-")
    for arm in ARMS["crl"]:
        cells = []
        for values in found.values():
            gains = [value - base for value, base in zip(values[arm], values["a"], strict=True)]
            cells += [spread(values[arm]), "-" if arm == "a" else verdict(gains)]
        paper = f"{CRL_PAPER[arm]:.2f}" + (f", {CRL_PAPER[arm] - CRL_PAPER['a']:+.2f}" if arm != "a" else "")
        table.add_row(NAMES[arm], *cells, paper)
    yield table


def _dasr(rows: Sequence[Row]) -> Iterator[Table | str]:
    step, seeds = fair_step(rows, "dasr")
    if not seeds:
        yield f"{TITLES['dasr']}: not all arms have been measured at one step yet."
        return
    for folder in _folders(rows):
        table = Table(
            "",
            *(f"width {width}" for width in WIDTHS),
            title=f"{TITLES['dasr']}\n{folder}, at step {step:,}, mean ± standard deviation over {len(seeds)} seeds",
        )
        columns = [_at(rows, step, seeds, f"psnr/{folder}/{width}") for width in WIDTHS]
        for arm in (REFERENCES["dasr"], *ARMS["dasr"]):
            if arm in columns[0]:
                table.add_row(NAMES[arm], *(spread(values[arm]) for values in columns))
        for arm in ARMS["dasr"][1:]:
            gains = (
                [value - base for value, base in zip(values[arm], values["without"], strict=True)] for values in columns
            )
            table.add_row(f"{NAMES[arm]}, to without", *map(verdict, gains))
        if folder == "Set14":
            ours, none = DASR_PAPER["same_image"], DASR_PAPER["without"]
            table.add_section()
            table.add_row("paper, Model 1 (without)", *(f"{value:.2f}" for value in none))
            table.add_row(
                "paper, Model 4 (contrast)", *(f"{a:.2f}, {a - b:+.2f}" for a, b in zip(ours, none, strict=True))
            )
        yield table


def save_plots(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draws a picture for each part that has something to show; returns the files."""
    from matplotlib.figure import Figure

    written = []
    encoder = [row for row in rows if row.part == "encoder"]
    if any(row.step for row in encoder):
        steps = sorted({row.step for row in encoder if row.step})
        figure = Figure(figsize=(12, 4.2), dpi=120, layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, (name, title) in zip(
            axes, (("knn", "kNN accuracy of 5 widths"), ("r2", "R² of a linear probe")), strict=True
        ):
            for number, arm in enumerate((REFERENCES["encoder"], *ARMS["encoder"])):
                found: dict[int, list[float]] = defaultdict(list)
                for row in encoder:
                    if (row.arm, row.figure) == (arm, name):
                        found[row.step].append(row.value)
                means = {step: statistics.fmean(values) for step, values in sorted(found.items())}
                if arm == REFERENCES["encoder"] and means:
                    axis.axhline(means[0], color="#777777", linestyle="--", linewidth=1.2, label=NAMES[arm])
                elif means:
                    colour = _COLOURS[(number - 1) % len(_COLOURS)]
                    axis.plot(list(means), list(means.values()), "o-", markersize=4, color=colour, label=NAMES[arm])
            guessing = 1 / len(WIDTHS) if name == "knn" else 0.0
            axis.axhline(guessing, color="#BBBBBB", linestyle=":", label="guessing")
            axis.set_xscale("log")
            axis.set_xticks(steps, [f"{step:,}" for step in steps], rotation=30)
            axis.minorticks_off()
            # whole, so that noise about guessing looks like what it is; an R² far below 0 says no more than one of 0
            axis.set_ylim(0 if name == "knn" else -0.2, 1)
            _finish(axis, title, "step")
        axes[1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
        written.append(_write(figure, out / "encoder.png"))

    crl = [row for row in rows if row.part == "crl"]
    step, seeds = fair_step(crl, "crl")
    if seeds:
        folders = _folders(crl)
        figure = Figure(figsize=(4.6 * len(folders) + 0.6, 4), dpi=120, layout="constrained")
        for axis, folder in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders, strict=True):
            values = _at(crl, step, seeds, f"psnr/{folder}")
            for place, arm in enumerate(ARMS["crl"]):
                gains = [value - base for value, base in zip(values[arm], values["a"], strict=True)]
                axis.plot([place] * len(gains), gains, "o", markersize=5, alpha=0.6, color=_COLOURS[0])
                axis.plot([place - 0.25, place + 0.25], [statistics.fmean(gains)] * 2, color=_COLOURS[1], linewidth=2)
            axis.set_xticks(range(len(ARMS["crl"])), ARMS["crl"])
            _finish(axis, f"{folder}, step {step:,}", "model of Table 1")
            axis.set_ylabel("PSNR over model a's of the same seed, dB")
        written.append(_write(figure, out / "crl.png"))

    dasr = [row for row in rows if row.part == "dasr"]
    step, seeds = fair_step(dasr, "dasr")
    if seeds:
        folders = _folders(dasr)
        figure = Figure(figsize=(4.6 * len(folders) + 2.6, 4), dpi=120, layout="constrained")
        for axis, folder in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders, strict=True):
            columns = [_at(dasr, step, seeds, f"psnr/{folder}/{width}") for width in WIDTHS]
            for number, arm in enumerate(ARMS["dasr"]):
                low, mean, high = zip(
                    *((min(v[arm]), statistics.fmean(v[arm]), max(v[arm])) for v in columns), strict=True
                )
                axis.plot(WIDTHS, mean, "o-", markersize=4, color=_COLOURS[number], label=NAMES[arm])
                axis.fill_between(WIDTHS, low, high, color=_COLOURS[number], alpha=0.15, linewidth=0)
            if REFERENCES["dasr"] in columns[0]:
                bicubic = [v[REFERENCES["dasr"]][0] for v in columns]
                axis.plot(WIDTHS, bicubic, "--", color="#777777", linewidth=1.2, label=NAMES[REFERENCES["dasr"]])
            _finish(axis, f"{folder}, step {step:,}, all of {len(seeds)} seeds within the bands", "kernel width")
            axis.set_ylabel("PSNR on Y, dB")
        axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
        written.append(_write(figure, out / "dasr.png"))
    return written


def _finish(axis: Axes, title: str, xlabel: str) -> None:
    axis.set(title=title, xlabel=xlabel)
    axis.grid(alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _write(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
