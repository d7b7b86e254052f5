"""`contrastive-sr upscale`: which weights it takes, what it writes and says, and a kill in the middle."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from skimage import data

from contrastive_sr.cli.upscale import upscale_folder
from contrastive_sr.data.images import as_image, read_rgb
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.trained import network_of_options

Run = Callable[..., subprocess.CompletedProcess[str]]

EDSR = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, upscale: 4}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        Image.fromarray(data.astronaut()[20 * number :][:120, 160:320]).save(folder / f"{number:02}.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What BasicSR saves of a run, its averaged weights others than the live ones."""
    run = tmp_path_factory.mktemp("checkpoints") / "my_run"
    (run / "models").mkdir(parents=True)
    (run / "my_run.yml").write_text(f"network_g: {EDSR}")
    torch.manual_seed(0)
    live, average = (network_of_options(EDSR, 4).state_dict() for _ in range(2))
    torch.save({"params": live, "params_ema": average}, run / "models" / "net_g_latest.pth")
    return run / "models" / "net_g_latest.pth"


def upscale(photos: Path, out: Path, checkpoint: Path, **options: Any) -> str:
    """Runs the command in this process; what it prints."""
    console = Console(width=200, record=True, file=io.StringIO())
    defaults: dict[str, Any] = {"network": "auto", "scale": 4, "tile": None, "overlap": 32, "device": "cpu"}
    settings = {**defaults, "sheet": None, **options}
    upscale_folder(photos, out, checkpoint=checkpoint, **settings, console=console)
    return console.export_text()


@pytest.mark.basicsr
def test_photos_by_the_averaged_weights(photos: Path, checkpoint: Path, tmp_path: Path) -> None:
    printed = upscale(photos, tmp_path / "sr", checkpoint, sheet=tmp_path / "sheet.png")
    net = network_of_options(EDSR, 4)
    net.load_state_dict(torch.load(checkpoint)["params_ema"])
    with torch.no_grad():
        expected = as_image(net(read_rgb(photos / "03.jpg")))
    np.testing.assert_array_equal(as_image(read_rgb(tmp_path / "sr" / "03.png")), expected)
    assert "Passed over, since their endings are not those of images: 1 (notes.txt)." in printed
    assert "my_run/net_g_latest: " in printed
    assert f"Wrote 12 of 12 images to {tmp_path / 'sr'}." in printed
    assert f"Drawn: {tmp_path / 'sheet.png'}" in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 4 * sheet.width // 2  # five rows of two

    assert "Wrote 0 of 12 images" in upscale(photos, tmp_path / "sr", checkpoint)
    # the same weights with other options are another network
    with pytest.raises(DataError, match=r"00.png is there, and was not made of this photo in this way"):
        upscale(photos, tmp_path / "sr", checkpoint, network=EDSR.replace("}", ", res_scale: 0.5}"))


@pytest.mark.basicsr
def test_a_kill_loses_nothing(photos: Path, checkpoint: Path, tmp_path: Path, project: Path, command_line: Run) -> None:
    arguments = ["upscale", str(photos), "sr", "--checkpoint", str(checkpoint), "--scale", "4", "--device", "cpu"]
    out = tmp_path / "sr"
    process = subprocess.Popen(
        [sys.executable, "-m", "contrastive_sr.cli", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None and len(list(out.glob("*.png"))) < 2:
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 2 <= len(there) < 12
    for path in there:
        assert read_rgb(path).shape == (1, 3, 480, 640)
    done = command_line(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"Wrote {12 - len(there)} of 12 images to sr; {len(there)} were there." in done.stdout
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert sorted(path.name for path in out.iterdir()) == [f"{number:02}.png" for number in range(12)]


@pytest.mark.basicsr
def test_bad_arguments_are_explained(photos: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "sr"

    def refused(error: type[Exception], message: str, **options: Any) -> None:
        with pytest.raises(error, match=message):
            upscale(**{"photos": photos, "out": out, "checkpoint": checkpoint, **options})

    refused(DataError, "^FOLDER: expected a folder of images, got nowhere", photos=Path("nowhere"))
    refused(DataError, "^FOLDER: expected another folder to write to", out=photos)
    refused(ConfigError, "--checkpoint: expected an existing file, got none.pth", checkpoint=Path("none.pth"))
    refused(ConfigError, "my_run/net_g_latest: .* It is a network for x4", scale=2)
    refused(ConfigError, "--sheet: expected a picture to write, .png, .pdf or .svg, got s.txt", sheet=Path("s.txt"))
    refused(ConfigError, "--device: expected one such as cpu", device="gpu")
    refused(ConfigError, "--device: expected one such as cpu", device="hpu")
    sheet = out / "03.png"
    refused(ConfigError, "--sheet: .*03.png is an image that the picture would be made of", sheet=sheet)
    (tmp_path / "file").write_text("")
    refused(ConfigError, "OUT: .* cannot be written", out=tmp_path / "file")
    assert list(out.glob("*")) == []


@pytest.mark.basicsr
def test_an_option_file_counts_by_the_network_in_it(photos: Path, checkpoint: Path, tmp_path: Path) -> None:
    """BasicSR writes date and command into its copy at each start, also of a file that ends in .yaml."""
    run = shutil.copytree(checkpoint.parents[1], tmp_path / "run")
    (run / "my_run.yml").rename(run / "my_run.yaml")
    checkpoint = run / "models" / checkpoint.name
    upscale(photos, tmp_path / "sr", checkpoint)
    (run / "my_run.yaml").write_text(f"# GENERATE TIME: later\nnetwork_g: {EDSR}\ntrain: {{total_iter: 7}}\n")
    assert "Wrote 0 of 12" in upscale(photos, tmp_path / "sr", checkpoint)
    (run / "my_run.yaml").write_text(f"network_g: {EDSR.replace('num_block: 1', 'num_block: 1, res_scale: 0.5')}")
    with pytest.raises(DataError, match="was not made of this photo in this way"):
        upscale(photos, tmp_path / "sr", checkpoint)
