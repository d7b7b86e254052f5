"""`contrastive-sr plot degradations`: what it prints and draws, and what it does with input it cannot use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from contrastive_sr import networks
from contrastive_sr.cli.plot import plot_degradations
from contrastive_sr.errors import ConfigError, DataError, HostError
from contrastive_sr.evaluation.degradations import read_contents

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of 32 x 32."""
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(7):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{seed}.png")
    return images


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net_g_latest.pth"
    torch.save({"params": networks.DASR(channels=4, groups=1, blocks=1).state_dict()}, path)
    return path


def test_presets_are_a_row_of_their_own(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image under each of nine anisotropic kernels; DASR's Fig. 6a."""
    kernels = [f"dasr-table3-kernel{number}-noise0" for number in range(1, 10)]
    out = tmp_path / "plot.png"
    plot_degradations(checkpoint, folder, out, presets=kernels, widths=[0.2, 3.4], console=Console(width=160))
    printed = capsys.readouterr().out
    assert "kNN over 9 presets" in printed
    with Image.open(out) as picture:
        assert picture.height > picture.width  # two columns, three rows


def test_table_and_picture(folder: Path, checkpoint: Path, tmp_path: Path, command_line: Run) -> None:
    other = tmp_path / "without.pth"
    torch.save(networks.DASR(channels=4, groups=1, blocks=1).state_dict(), other)
    options = ("--width", "0.2", "--width", "3.4", "--noise", "0", "--noise", "5", "--noise", "30")
    done = command_line(
        *("plot", "degradations", checkpoint, "--data", folder, "--without-contrast", other, "--out", "sub/plot.png"),
        *options,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == [
        "net_g_latest.pth",
        "without.pth, without contrast",
        "random encoder",
        "guessing",
    ]
    for row in rows[:3]:
        accuracies = [float(cell) for cell in row.split("│")[2:4]]
        assert all(0 <= accuracy <= 1 for accuracy in accuracies)
        assert accuracies[0] * 14 == pytest.approx(round(accuracies[0] * 14), abs=0.01)  # 7 images, 2 widths
    assert [float(cell) for cell in rows[3].split("│")[2:4]] == [0.5, 0.333]
    assert "7 images" in done.stdout
    with Image.open(tmp_path / "sub" / "plot.png") as picture:
        assert picture.width > picture.height > 600  # three columns, two rows


def _refused(error: type[Exception], message: str, checkpoint: Path, folder: Path, **options: object) -> None:
    with pytest.raises(error, match=message):
        plot_degradations(checkpoint, folder, folder / "plot.png", console=Console(quiet=True), **options)  # type: ignore[arg-type]


def test_bad_input_is_explained(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"params": {"conv.weight": torch.rand(3)}}, tmp_path / "edsr.pth")
    message = r"edsr\.pth was expected to hold the weights of one DegradationEncoder, got none"
    _refused(ConfigError, message, tmp_path / "edsr.pth", folder)
    _refused(ConfigError, "expected an existing file", tmp_path / "none.pth", folder)
    (tmp_path / "empty").mkdir()
    _refused(DataError, "Expected images in .*empty", checkpoint, tmp_path / "empty")
    _refused(ConfigError, "--width: expected at least two different values, got 1.0", checkpoint, folder, widths=[1.0])
    _refused(ConfigError, "--preset: expected at least two different", checkpoint, folder, presets=["dasr-isotropic"])
    _refused(ConfigError, "no preset has the name 'dasr-x'", checkpoint, folder, presets=["dasr-isotropic", "dasr-x"])
    _refused(ConfigError, "--noise: expected at least two different", checkpoint, folder, noise_levels=[5.0, 5.0])
    _refused(ConfigError, "levels from 0 to 255, got 300", checkpoint, folder, noise_levels=[0.0, 300.0])
    with pytest.raises(ConfigError, match=r"--out: expected a picture to write"):
        plot_degradations(checkpoint, folder, Path("plot.txt"), console=Console(quiet=True))
    image = sorted(folder.iterdir())[0]
    before = image.read_bytes()
    with pytest.raises(ConfigError, match="is an image that the picture would be made of"):
        plot_degradations(checkpoint, folder, image, console=Console(quiet=True))
    assert image.read_bytes() == before
    for file in sorted(folder.iterdir())[2:]:
        file.unlink()
    _refused(DataError, "at least 3 images in colour in .*, got 2", checkpoint, folder)
    _refused(ConfigError, r"expected a whole number from 2 to 4, got 30", checkpoint, folder, scale=30)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"--out: .*file/plot\.png cannot be written"):
        plot_degradations(checkpoint, folder, tmp_path / "file" / "plot.png", console=Console(quiet=True))


def test_images_that_cannot_be_used_are_named(folder: Path) -> None:
    extra = folder / "x.png"
    Image.new("L", (32, 32), 90).save(extra)
    images, grey = read_contents(folder, 100, "cpu")
    assert (len(images), grey) == (7, 1)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)).save(extra)
    with pytest.raises(DataError, match=r"x\.png is 40 x 20"):
        read_contents(folder, 100, "cpu")
    extra.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image"):
        read_contents(folder, 100, "cpu")


def test_few_of_many_images_and_their_middles(folder: Path) -> None:
    assert len(read_contents(folder, 3, "cpu")[0]) == 3
    pixels = np.random.default_rng(0).integers(0, 256, (600, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    middle = read_contents(folder, 3, "cpu")[0][0]
    assert middle.shape == (1, 3, 512, 40)
    np.testing.assert_array_equal((middle[0] * 255).round().permute(1, 2, 0).numpy(), pixels[44:556])


def test_without_the_extra_it_says_what_to_install(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == "sklearn" or name.endswith("evaluation.degradations")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delattr("contrastive_sr.evaluation.degradations", raising=False)
    _refused(HostError, r"contrastive-sr\[plot\]", checkpoint, folder)
