"""`contrastive-sr demo`, short, through both hosts: trainings, table, pictures, and the second run."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from contrastive_sr.hosts.demo import verdict

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "framework", [pytest.param("basicsr", marks=pytest.mark.basicsr), pytest.param("mmagic", marks=pytest.mark.mmagic)]
)
def test_demo(framework: str, demo_data: Path, tmp_path: Path, command_line: Run) -> None:
    arguments = ("demo", "--framework", framework, "--steps", "20", "--data", demo_data)
    done = command_line(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 % (20/20)" in done.stderr  # progress of the trainings

    folder = tmp_path / "demo" / framework
    results = json.loads((folder / "results.json").read_text())
    assert set(results["mean"]) == {"bicubic", "L1", "L1 + PCL"}
    assert set(results["photographs"]) == {"chelsea", "motorcycle_left"}
    assert results["mean"]["bicubic"]["psnr"] == pytest.approx(26.61, abs=0.02)
    assert results["seconds_per_step"]["L1"] > 0
    assert results["seconds_per_step"]["L1 + PCL"] > 0
    for label, names in (
        ("L1", {"pixel", "psnr"}),
        ("L1 + PCL", {"pixel", "contrastive", "positive", "negative", "psnr"}),
    ):
        curves = results["curves"][label]
        assert set(curves) == names
        assert [step for step, _ in curves["psnr"]] == list(range(2, 21, 2))
        assert [step for step, _ in curves["pixel"]] == list(range(1, 21))
    for name in ("crops.png", "curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 700

    # the last validation that the host itself logged is what the table says
    for plan, label in (("l1", "L1"), ("l1_pcl", "L1 + PCL")):
        log = (folder / f"{plan}.console.log").read_text()
        mark = "# psnr: " if framework == "basicsr" else "PSNR: "
        assert float(log.rsplit(mark, 1)[1].split()[0]) == pytest.approx(results["mean"][label]["psnr"], abs=0.01)
        assert f"{results['mean'][label]['psnr']:.2f}" in done.stdout

    # whatever is announced is there
    announced = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("  ") and ": " in line]
    assert len(announced) == 6
    assert all((tmp_path / path).exists() for path in announced)
    assert any((tmp_path / announced[2]).glob("events.out.tfevents.*"))

    # one seed: the first step saw the same batch and the same network
    first, second = (results["curves"][label]["pixel"][0] for label in ("L1", "L1 + PCL"))
    assert first == pytest.approx(second, rel=1e-4)

    (folder / "crops.png").unlink()
    again = command_line(*arguments)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("found, trained with") == 2
    assert "100 %" not in again.stderr
    assert (folder / "crops.png").is_file()
    assert json.loads((folder / "results.json").read_text()) == results


@pytest.mark.basicsr
def test_a_training_that_fails_says_where_its_log_is(demo_data: Path, tmp_path: Path, command_line: Run) -> None:
    """A file lies where the host has to make its folder of experiments."""
    (tmp_path / "demo" / "basicsr").mkdir(parents=True)
    (tmp_path / "demo" / "basicsr" / "experiments").write_text("in the way")
    done = command_line("demo", "--steps", "20", "--data", demo_data)
    assert done.returncode == 1
    assert "The training with L1 ended with exit code 1. The end of" in done.stderr
    assert "l1.console.log" in done.stderr
    assert not (tmp_path / "demo" / "basicsr" / "results.json").exists()


@pytest.mark.basicsr
def test_two_demos_do_not_share_a_folder(demo_data: Path, tmp_path: Path, command_line: Run) -> None:
    folder = tmp_path / "demo" / "basicsr"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command_line("demo", "--steps", "20", "--data", demo_data)
    assert done.returncode == 1
    assert "Another demo is writing into demo/basicsr" in done.stderr
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("pixel", "contrastive", "shown"),
    [(27.0, 27.139, "+0.14 dB"), (27.0, 26.87, "-0.13 dB"), (27.0, 26.999, "+0.00 dB")],
)
def test_the_verdict_says_what_one_run_can(pixel: float, contrastive: float, shown: str) -> None:
    assert f"{shown}, one run of 600 steps" in verdict(pixel, contrastive, 600)
