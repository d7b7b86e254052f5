"""Tables and plots of the blind study, from the CSV alone."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.evidence.blind import ARMS, REFERENCES, WIDTHS
from benchmarks.evidence.ledger import Row
from benchmarks.evidence.report import COLOURS, fair_step, finish, folders_of, spread, values_at, verdict, write

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


def _crl(rows: Sequence[Row]) -> Iterator[Table | str]:
    step, seeds = fair_step(rows, "crl", ARMS["crl"])
    if not seeds:
        yield f"{TITLES['crl']}: not all six models have been measured at one step yet."
        return
    folders = folders_of(rows)
    table = Table(
        "model",
        *(column for folder in folders for column in (folder, f"{folder}, to a")),
        "paper, Set14",
        title=f"{TITLES['crl']}\nat step {step:,}, mean ± standard deviation over {len(seeds)} seeds",
    )
    by_folder = {folder: values_at(rows, step, seeds, f"psnr/{folder}") for folder in folders}
    reference = REFERENCES["crl"]
    if all(reference in values for values in by_folder.values()):
        table.add_row(
            NAMES[reference], *(cell for v in by_folder.values() for cell in (spread(v[reference]), "-")), "-"
        )
    for arm in ARMS["crl"]:
        cells = []
        for values in by_folder.values():
            gains = [value - base for value, base in zip(values[arm], values["a"], strict=True)]
            cells += [spread(values[arm]), "-" if arm == "a" else verdict(gains)]
        paper = f"{CRL_PAPER[arm]:.2f}" + (f", {CRL_PAPER[arm] - CRL_PAPER['a']:+.2f}" if arm != "a" else "")
        table.add_row(NAMES[arm], *cells, paper)
    yield table


def _dasr(rows: Sequence[Row]) -> Iterator[Table | str]:
    step, seeds = fair_step(rows, "dasr", ARMS["dasr"])
    if not seeds:
        yield f"{TITLES['dasr']}: not all arms have been measured at one step yet."
        return
    for folder in folders_of(rows):
        table = Table(
            "",
            *(f"width {width}" for width in WIDTHS),
            title=f"{TITLES['dasr']}\n{folder}, at step {step:,}, mean ± standard deviation over {len(seeds)} seeds",
        )
        columns = [values_at(rows, step, seeds, f"psnr/{folder}/{width}") for width in WIDTHS]
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
                by_step: dict[int, list[float]] = defaultdict(list)
                for row in encoder:
                    if (row.arm, row.figure) == (arm, name):
                        by_step[row.step].append(row.value)
                means = {step: statistics.fmean(values) for step, values in sorted(by_step.items())}
                if arm == REFERENCES["encoder"] and means:
                    axis.axhline(means[0], color="#777777", linestyle="--", linewidth=1.2, label=NAMES[arm])
                elif means:
                    colour = COLOURS[(number - 1) % len(COLOURS)]
                    axis.plot(list(means), list(means.values()), "o-", markersize=4, color=colour, label=NAMES[arm])
            guessing = 1 / len(WIDTHS) if name == "knn" else 0.0
            axis.axhline(guessing, color="#BBBBBB", linestyle=":", label="guessing")
            axis.set_xscale("log")
            axis.set_xticks(steps, [f"{step:,}" for step in steps], rotation=30)
            axis.minorticks_off()
            # whole, so that noise about guessing looks like what it is; an R² far below 0 says no more than one of 0
            axis.set_ylim(0 if name == "knn" else -0.2, 1)
            finish(axis, title, "step")
        axes[1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
        written.append(write(figure, out / "encoder.png"))

    crl = [row for row in rows if row.part == "crl"]
    step, seeds = fair_step(crl, "crl", ARMS["crl"])
    if seeds:
        folders = folders_of(crl)
        figure = Figure(figsize=(4.6 * len(folders) + 0.6, 4), dpi=120, layout="constrained")
        for axis, folder in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders, strict=True):
            values = values_at(crl, step, seeds, f"psnr/{folder}")
            for place, arm in enumerate(ARMS["crl"]):
                gains = [value - base for value, base in zip(values[arm], values["a"], strict=True)]
                axis.plot([place] * len(gains), gains, "o", markersize=5, alpha=0.6, color=COLOURS[0])
                axis.plot([place - 0.25, place + 0.25], [statistics.fmean(gains)] * 2, color=COLOURS[1], linewidth=2)
            axis.set_xticks(range(len(ARMS["crl"])), ARMS["crl"])
            finish(axis, f"{folder}, step {step:,}", "model of Table 1")
            axis.set_ylabel("PSNR over model a's of the same seed, dB")
        written.append(write(figure, out / "crl.png"))

    dasr = [row for row in rows if row.part == "dasr"]
    step, seeds = fair_step(dasr, "dasr", ARMS["dasr"])
    if seeds:
        folders = folders_of(dasr)
        figure = Figure(figsize=(4.6 * len(folders) + 2.6, 4), dpi=120, layout="constrained")
        for axis, folder in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders, strict=True):
            columns = [values_at(dasr, step, seeds, f"psnr/{folder}/{width}") for width in WIDTHS]
            for number, arm in enumerate(ARMS["dasr"]):
                low, mean, high = zip(
                    *((min(v[arm]), statistics.fmean(v[arm]), max(v[arm])) for v in columns), strict=True
                )
                axis.plot(WIDTHS, mean, "o-", markersize=4, color=COLOURS[number], label=NAMES[arm])
                axis.fill_between(WIDTHS, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
            if REFERENCES["dasr"] in columns[0]:
                bicubic = [v[REFERENCES["dasr"]][0] for v in columns]
                axis.plot(WIDTHS, bicubic, "--", color="#777777", linewidth=1.2, label=NAMES[REFERENCES["dasr"]])
            finish(axis, f"{folder}, step {step:,}, all of {len(seeds)} seeds within the bands", "kernel width")
            axis.set_ylabel("PSNR on Y, dB")
        axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
        written.append(write(figure, out / "dasr.png"))
    return written
