"""What ``python -m benchmarks evidence-...`` does, whatever the study."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.evidence.ledger import read_rows
from benchmarks.evidence.run import CSV, Evidence
from benchmarks.evidence.training import Report, Study

MOST = 12
"""More figures than these are shown by their means."""


def _shown(figures: Mapping[str, float]) -> str:
    """Figures in a line; where there is one for each image, the mean of each kind."""
    if len(figures) > MOST:
        kinds = dict.fromkeys(name.split("/")[0] for name in figures)
        figures = {
            kind: statistics.fmean(value for name, value in figures.items() if name.split("/")[0] == kind)
            for kind in kinds
        }
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def run_evidence(
    out: Path,
    study: Callable[[], Study] | None,
    report: Report,
    minutes: float,
    parts: Sequence[str],
    console: Console,
) -> None:
    """Runs within the time, and prints all that is in the CSV.

    Args:
        out: folder of CSV, plots and states.
        study: makes what is compared; None: run nothing.
        report: makes tables and plots.
        minutes: how long.
        parts: names of the study's parts.
        console: where tables go.

    Raises:
        ConfigError: folders that cannot be used, or ``out`` was begun with others.
        DataError: images that cannot be used.
    """
    if study is not None:
        with console.status("reading images ...") as status:
            what = study()
            evidence = Evidence(what, out)
            console.print(f"{what.data}{what.note}", soft_wrap=True)
            for unit, figures in evidence.units(parts, minutes, report=status.update):
                console.print(f"{unit.name}: {_shown(figures)}", soft_wrap=True, highlight=False)
                report.save_plots(read_rows(out / CSV), out)
    rows = read_rows(out / CSV)
    if not rows:
        more = "" if study is None else " Give it more --minutes."
        console.print(f"Nothing has been measured in {out} yet.{more}")
        return
    for text in report.tables(rows):
        console.print(text, soft_wrap=isinstance(text, str))
    written = [out / CSV, *report.save_plots(rows, out)]
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)
