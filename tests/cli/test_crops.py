"""`contrastive-sr plot crops`: what it draws and prints, and what it does with input it cannot use."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from skimage import data

from contrastive_sr.cli.crops import Part, part_of, plot_crops
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import bicubic, plots, psnr_y
from contrastive_sr.evaluation.data_sets import bicubic_lr
from contrastive_sr.hosts.trained import network_of_options

Run = Callable[..., subprocess.CompletedProcess[str]]

EDSR = "{type: EDSR, num_feat: 8, num_block: 1}"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """110 x 90, of which 108 x 88 are measured at x4."""
    path = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()[100:190, 100:210]).save(path)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, UInt8Image]]]:
    """The rows of the picture that is saved."""
    rows: list[list[tuple[str, UInt8Image]]] = []
    save = plots.save_grid

    def keep(path: Path, given: list[list[tuple[str, UInt8Image]]]) -> None:
        rows.extend(given)
        save(path, given)

    monkeypatch.setattr(plots, "save_grid", keep)
    return rows


def draw(*parts: str, out: Path, **options: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    plot_crops(parts, out, **{"methods": ["bicubic"], "scale": 4, "device": "cpu", **options}, console=console)
    return console.export_text()


def test_forms_of_a_part(photo: Path) -> None:
    assert part_of(f"{photo}@3,40,16") == Part(photo, (3, 40, 16))
    assert part_of(str(photo)) == Part(photo, None)
    with_at = photo.with_name("cat@1,2,3")
    photo.rename(with_at)
    assert part_of(str(with_at)) == Part(with_at, None)
    assert part_of(f"{with_at}@4,5,6") == Part(with_at, (4, 5, 6))


@pytest.mark.parametrize("numbers", ["1,2", "1,2,0", "1,2,-3", "a,b,c", ""])
def test_another_form_is_refused(photo: Path, numbers: str) -> None:
    with pytest.raises(ConfigError, match=r"^IMAGE: expected IMAGE or IMAGE@LEFT,TOP,SIDE, .*got .*cat.png@"):
        part_of(f"{photo}@{numbers}")


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^IMAGE: expected the file of an HR image, got .*dog.png, which is not there"):
        part_of(f"{tmp_path}/dog.png@1,2,3")
    with pytest.raises(DataError, match=r"got .*d@1/dog.png, which is not there"):
        part_of(f"{tmp_path}/d@1/dog.png")
    with pytest.raises(DataError, match=r"got .*, which is a folder"):
        part_of(f"{tmp_path}@1,2,3")


def test_parts_of_whole_images(photo: Path, tmp_path: Path, drawn: list[list[tuple[str, UInt8Image]]]) -> None:
    printed = draw(f"{photo}@30,20,48", str(photo), out=tmp_path / "crops.png")
    hr = data.chelsea()[100:188, 100:208]
    make = bicubic_lr(4).make
    assert make is not None
    sr = (bicubic(4)(make("cat", hr).lr)[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    assert len(drawn) == 2
    (title, crop), (of_hr, reference) = drawn[0]
    assert title == f"bicubic\n{psnr_y(sr, hr, border=4):.2f} dB"
    assert of_hr == "HR\ncat"
    assert np.array_equal(crop, sr[20:68, 30:78])
    assert np.array_equal(reference, hr[20:68, 30:78])
    assert [image.shape for _, image in drawn[1]] == [(64, 64, 3)] * 2
    # what was chosen is printed in the form that gives the same part again
    assert f"{photo}@30,20,48\n" in printed
    (chosen,) = [line for line in printed.splitlines() if line.endswith(",64")]
    draw(chosen, out=tmp_path / "again.png")
    assert np.array_equal(drawn[2][0][1], drawn[1][0][1])


@pytest.mark.basicsr
def test_networks_side_by_side(photo: Path, tmp_path: Path, command_line: Run) -> None:
    torch.manual_seed(0)
    network = network_of_options(EDSR, 4)
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    checkpoints = ("--checkpoint", "first=net.pth", "--checkpoint", "second=net.pth", "--network", EDSR)
    done = command_line(
        *("plot", "crops", f"{photo.name}@0,0,32", *checkpoints, "--bicubic", "--scale", "4"),
        *("--tile", "24", "--overlap", "4", "--out", "below/crops.png"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "cat.png@0,0,32",
        "Figures are those of whole images. Written: below/crops.png",
    ]
    with Image.open(tmp_path / "below/crops.png") as picture:
        assert picture.width > 3 * picture.height  # a row of four


def test_a_given_lr_image(photo: Path, tmp_path: Path, drawn: list[list[tuple[str, UInt8Image]]]) -> None:
    colours = {"green": (10, 200, 30), "blue": (10, 20, 230)}
    for name, colour in colours.items():
        Image.new("RGB", (27, 22), colour).save(tmp_path / f"{name}.png")
    lr = [tmp_path / f"{name}.png" for name in colours]
    draw(*2 * [f"{photo}@30,20,8"], lr=lr, out=tmp_path / "crops.png")
    for row, colour in zip(drawn, colours.values(), strict=True):
        assert np.array_equal(np.unique(row[0][1].reshape(-1, 3), axis=0), [colour])
    with pytest.raises(DataError, match=r"^--lr: .*cat.png is 110 x 90 in HR and 27 x 22 in LR"):
        draw(str(photo), lr=lr[:1], scale=2, out=tmp_path / "crops.png")
    with pytest.raises(DataError, match=r"^--lr: .*HR without LR: cat.png"):
        draw(str(photo), lr=[tmp_path / "red.png"], out=tmp_path / "crops.png")
    with pytest.raises(ConfigError, match=r"^--lr: expected a file for each IMAGE, got none. At scale 1"):
        draw(str(photo), scale=1, out=tmp_path / "crops.png")
    with pytest.raises(ConfigError, match="--lr: expected one for each IMAGE, in the same order, got 1 for 2"):
        draw(str(photo), str(photo), lr=lr[:1], out=tmp_path / "crops.png")


@pytest.mark.parametrize("name", ["a$b_{$.png", "a\udcff.png"], ids=["formula", "no UTF-8"])
def test_a_strange_name(name: str, photo: Path, tmp_path: Path) -> None:
    draw(str(photo.rename(tmp_path / name)), out=tmp_path / "crops.png")
    assert (tmp_path / "crops.png").is_file()


def test_a_metric_that_fails_costs_no_picture(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[list[tuple[str, UInt8Image]]]
) -> None:
    def fail(sr: UInt8Image, hr: UInt8Image) -> float:
        raise RuntimeError("no memory left")

    monkeypatch.setattr("contrastive_sr.hosts.metrics.find_lpips", lambda weights, device: ({"lpips": fail}, []))
    printed = draw(str(photo), out=tmp_path / "crops.png")
    assert "- bicubic: lpips of cat.png could not be measured (RuntimeError: no memory left)." in printed
    assert "LPIPS" not in drawn[0][0][0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"part": "@80,20,48"}, DataError, r"square inside .*cat.png, of 108 x 88 pixels, got one of 48 x 48 at 80,20"),
        ({"methods": []}, ConfigError, r"Expected something to draw: --checkpoint FILE, or --bicubic"),
        ({"out": "cat.png"}, ConfigError, r"--out: .*cat.png is an image that the picture would be made of"),
        ({"out": "crops.jpg"}, ConfigError, r"--out: expected a picture to write, .png, .pdf or .svg, got .*crops.jpg"),
        ({"lpips_weights": "nowhere.pth"}, ConfigError, "nowhere.pth"),
        ({"scale": 40}, DataError, r"cat.png: .*expected an HR image of at least 91 pixels a side"),
        ({"tile": 0}, ConfigError, "tile"),
    ],
)
def test_what_cannot_be_used(
    photo: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    changed = {**options, "out": tmp_path / options.get("out", "crops.png")}
    if "lpips_weights" in options:
        changed["lpips_weights"] = tmp_path / options["lpips_weights"]
    part = f"{photo}{changed.pop('part', '')}"
    with pytest.raises(error, match=message):
        draw(part, **changed)
    assert not (tmp_path / "crops.png").exists()
