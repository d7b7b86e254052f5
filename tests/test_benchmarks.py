"""The benchmarks on small sizes: that they measure what they say; no test asserts a time."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import layout, nce


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, project: Path) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nce", "--size", "64", "--out", str(out)],
        cwd=project,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, out


@pytest.mark.slow
def test_every_case_is_measured_or_said_to_be_left_out(output: tuple[str, Path]) -> None:
    text, out = output
    with (out / "nce.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    for name, case in nce.CASES.items():
        assert (name in rows) == (not case.missing)
        assert (f"left out: {name}, which needs {case.needs}" in text) == case.missing
    assert {"dense", "tiled", "SRNCE tiled"} <= rows.keys()
    for row in rows.values():
        assert int(row["m"]) == 64
        assert float(row["bound"]) > 0
        assert -1 < float(row["extra_mib"]) < 50  # the kernel counts in steps
    for name in ("dense", "tiled", "tiled, no cache", "SRNCE tiled"):
        assert 0 < float(rows[name]["gradient_error"]) < 1e-4


@pytest.mark.slow
def test_the_plot_is_a_picture(output: tuple[str, Path]) -> None:
    from PIL import Image

    with Image.open(output[1] / "nce.png") as picture:
        assert picture.width > 500
        assert len(set(picture.convert("L").resize((40, 40)).getdata())) > 5


def test_all_ways_to_one_loss_agree() -> None:
    """What is timed beside ours is the same loss, where the table gives a gradient error."""
    a, b = nce.problem(300)
    for reference in (nce.dense, nce.dense_srnce):
        expected = reference(a.double(), b.double())
        cases = [case for case in nce.CASES.values() if case.reference is reference and not case.missing]
        assert len(cases) >= 2
        for case in cases:
            if case.limit >= 300:
                torch.testing.assert_close(case.loss(a, b).double(), expected, rtol=1e-4, atol=1e-6)


def test_every_network_is_measured_in_both_layouts() -> None:
    ratios = dict(layout.report(patch=8, repeats=1))
    assert ratios.keys() == {"EDSR-baseline", "RCAN", "RRDBNet"}
    assert all(ratio > 0 for ratio in ratios.values())
