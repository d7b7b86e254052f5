"""``python -m benchmarks evidence-blind``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.evidence.ledger import read_rows
from benchmarks.evidence.report import save_plots, tables
from benchmarks.evidence.run import CSV, Evidence
from benchmarks.evidence.training import SIZES
from contrastive_sr.errors import ConfigError


def run_evidence(
    out: Path,
    train: Sequence[Path],
    test: Sequence[Path],
    minutes: float,
    parts: Sequence[str],
    size: str | None,
    report: bool,
    console: Console,
) -> None:
    """Runs within the time, and prints all that is in the CSV.

    Args:
        out: folder of CSV, plots and states.
        train: folders of HR images.
        test: folders of HR images.
        minutes: how long.
        parts: keys of ``ARMS``.
        size: a key of ``SIZES``; None: by the device.
        report: run nothing.
        console: where tables go.

    Raises:
        ConfigError: folders are missing, or ``out`` was begun with others.
        DataError: images that cannot be used.
    """
    if not report:
        if not train or not test:
            raise ConfigError("Expected folders of HR images, --train DIR and --test DIR; --report needs none.")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        name = size or ("large" if device.type == "cuda" else "small")
        with console.status("reading images ...") as status:
            evidence = Evidence(train, test, out, name, SIZES[name], device)
            left_out = evidence.images.left_out
            also = f"; {left_out} smaller than a training crop are left out" if left_out else ""
            console.print(f"{evidence.data}; {evidence.machine}; size {name}{also}", soft_wrap=True)
            for unit, figures in evidence.units(parts, minutes, report=status.update):
                shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                console.print(f"{unit.name}: {shown}", soft_wrap=True, highlight=False)
                save_plots(read_rows(out / CSV), out)
    rows = read_rows(out / CSV)
    if not rows:
        console.print(f"Nothing has been measured in {out} yet." + ("" if report else " Give it more --minutes."))
        return
    for text in tables(rows):
        console.print(text, soft_wrap=isinstance(text, str))
    written = [out / CSV, *save_plots(rows, out)]
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)
