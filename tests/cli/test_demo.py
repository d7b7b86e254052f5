"""`contrastive-sr demo`, short, through both hosts: trainings, table, pictures, and the second run."""

from __future__ import annotations

import fcntl
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from contrastive_sr.cli.demo import Framework, run_demo
from contrastive_sr.hosts.demo import verdict

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "framework",
    [
        pytest.param("basicsr", marks=pytest.mark.basicsr),
        pytest.param("mmagic", marks=[pytest.mark.mmagic, pytest.mark.long]),
    ],
)
def test_demo(
    framework: Framework, demo_data: Path, tmp_path: Path, command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("demo", "--framework", framework, "--steps", "10", "--data", demo_data)
    done = command_line(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 50 steps" in done.stdout  # progress of the trainings

    folder = tmp_path / "demo" / framework
    results = json.loads((folder / "results.json").read_text())
    assert results["steps"] == {"start": 30, "l1": 10, "l1_pcl": 10}
    trained = ["start", "L1", "L1 + PCL"]
    assert list(results["mean"]) == ["bicubic", *trained]
    assert set(results["photographs"]) == {"chelsea.png", "motorcycle_left.png"}
    assert results["mean"]["bicubic"]["psnr_y"] == pytest.approx(26.61, abs=0.02)
    assert all(results["seconds_per_step"][label] > 0 for label in trained)
    contrast = {"contrastive", "share", "positive", "negative"}
    for label, names in (("L1", {"pixel"}), ("L1 + PCL", {"pixel", *contrast})):
        curves = results["curves"][label]
        assert set(curves) == names
        assert all([step for step, _ in curve] == list(range(1, 11)) for curve in curves.values())
    assert results["curves"]["L1 + PCL"]["share"][0][1] == pytest.approx(1, rel=0.01)
    for name in ("crops.png", "curves.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 700

    # a training that learns, and what is printed; two fine-tunings of one start differ
    means = results["mean"]
    assert means["start"]["psnr_y"] > 20
    assert means["L1"]["psnr_y"] > means["start"]["psnr_y"]
    assert means["L1"] != means["L1 + PCL"]
    assert all(f"{means[label]['psnr_y']:.2f}" in done.stdout for label in trained)
    pixel, contrastive = means["L1"], means["L1 + PCL"]
    assert verdict(pixel, contrastive, 10) in done.stdout

    # whatever is announced is there
    announced = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("  ") and ": " in line]
    assert len(announced) == 9
    assert all((tmp_path / path).exists() for path in announced)

    # one seed and one start: the first step saw the same batch and the same network, which is that of the start
    first, second = (results["curves"][label]["pixel"][0][1] for label in ("L1", "L1 + PCL"))
    assert first == pytest.approx(second, rel=1e-4)
    assert first < results["curves"]["start"]["pixel"][0][1]

    (folder / "crops.png").unlink()
    monkeypatch.chdir(tmp_path)  # in this process, which has loaded torch already
    again = io.StringIO()
    run_demo(
        framework,
        Path("demo"),
        demo_data,
        steps=10,
        seed=0,
        lpips_weights=None,
        fresh=False,
        console=Console(file=again),
    )
    assert again.getvalue().count("found, trained with") == 3
    assert "trains" not in again.getvalue()
    assert (folder / "crops.png").is_file()
    assert json.loads((folder / "results.json").read_text()) == results


@pytest.mark.basicsr
def test_a_training_that_fails_says_where_its_log_is(demo_data: Path, tmp_path: Path, command_line: Run) -> None:
    """A file lies where the host has to make its folder of experiments."""
    (tmp_path / "demo" / "basicsr" / "runs").mkdir(parents=True)
    (tmp_path / "demo" / "basicsr" / "runs" / ".contrastive-sr").touch()  # one of ours
    (tmp_path / "demo" / "basicsr" / "runs" / "experiments").write_text("in the way")
    done = command_line("demo", "--steps", "10", "--data", demo_data)
    assert done.returncode == 1
    assert "The training with start, seed 0 ended with exit code 1. The end of" in done.stderr
    assert "start-0.console.log" in done.stderr
    assert not (tmp_path / "demo" / "basicsr" / "results.json").exists()


@pytest.mark.basicsr
def test_two_demos_do_not_share_a_folder(demo_data: Path, tmp_path: Path, command_line: Run) -> None:
    folder = tmp_path / "demo" / "basicsr"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command_line("demo", "--steps", "10", "--data", demo_data)
    assert done.returncode == 1
    assert "Another demo is writing into demo/basicsr" in done.stderr
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_the_verdict_says_which_way_each_figure_went() -> None:
    before = {"psnr_y": 27.2, "ssim_y": 0.7, "niqe": 7.0, "lpips": 0.42}
    said = verdict(before, {"psnr_y": 27.061, "ssim_y": 0.6, "niqe": 7.204, "lpips": 0.396}, 500)
    assert "PSNR -0.14 dB (worse), NIQE +0.20 (worse), LPIPS -0.024 (better)" in said
    assert "500 steps each from one start" in said
    assert "PSNR +0.00 dB (equal), NIQE -1.00 (better)." in verdict(before, {"psnr_y": 27.199, "niqe": 6.0}, 500)
    assert "dots +0.29 grey levels (worse)" in verdict({"pattern_scale": 0.06}, {"pattern_scale": 0.35}, 500)
    assert "LPIPS +0.080 (worse)" in verdict(before, {"psnr_y": 27.2, "niqe": None, "lpips": 0.5}, 500)
