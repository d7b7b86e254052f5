"""`contrastive-sr prepare degrade`: what it writes, that it can be made again, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive_sr.data import read_rgb, write_degraded
from contrastive_sr.degradations import PRESETS, build_degradation, gaussian_kernels
from contrastive_sr.errors import ConfigError, DataError

Run = Callable[..., subprocess.CompletedProcess[str]]


def pixels(seed: int, height: int = 34, width: int = 41, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(pixels(0)).save(folder / "b.png")
    Image.fromarray(pixels(1)).save(folder / "a.bmp")
    Image.fromarray(pixels(2, 50, 30)).save(folder / "c.jpg", quality=95)
    Image.fromarray(pixels(3, channels=1)).save(folder / "grey.PNG")
    (folder / "notes.txt").write_text("not an image")
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "degradations.json").read_text())
    return content


def as_tensor(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


# -------------------------------------------------------------------------------------------- what is written


def test_the_command_writes_pairs_and_how_they_were_made(source: Path, tmp_path: Path, command_line: Run) -> None:
    done = command_line("prepare", "degrade", source, "below/set", "--preset", "dasr-anisotropic", "--scale", "4")
    assert done.returncode == 0, done.stderr
    assert "Wrote 4 pairs at x4 (dasr-anisotropic-x4) in below/set" in done.stdout
    folder = tmp_path / "below" / "set"
    names = ["a.png", "b.png", "c.png", "grey.png"]
    assert sorted(digests(folder)) == sorted(
        ["degradations.json", *(f"{part}/{name}" for part in ("HR", "LRx4") for name in names)]
    )
    content = manifest(folder)
    assert list(content["images"]) == names
    assert content["preset"] == "dasr-anisotropic-x4"
    assert content["seed"] == 0
    assert content["kernel_size"] == 21
    assert content["degradation"] == json.loads(json.dumps(PRESETS["dasr-anisotropic-x4"]))
    assert [entry["source"] for entry in content["images"].values()] == ["a.bmp", "b.png", "c.jpg", "grey.PNG"]
    assert len({tuple(entry["sigma"]) for entry in content["images"].values()}) == 4
    for name in names:
        hr, lr = (as_tensor(folder / part / name) for part in ("HR", "LRx4"))
        assert hr.shape[2:] == (4 * lr.shape[2], 4 * lr.shape[3])


def test_hr_is_the_image_cropped_to_a_multiple_of_the_scale(source: Path, tmp_path: Path) -> None:
    write_degraded(source, tmp_path / "set", "dasr-isotropic-x3")
    expected = torch.from_numpy(pixels(0)[:33, :39]).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(as_tensor(tmp_path / "set" / "HR" / "b.png"), expected)
    grey = as_tensor(tmp_path / "set" / "HR" / "grey.png")
    assert torch.equal(grey[0, 0], torch.from_numpy(pixels(3, channels=1)[:33, :39]).float() / 255)
    assert torch.equal(grey[:, :1].expand(-1, 3, -1, -1), grey)


@pytest.mark.parametrize("preset", ["dasr-anisotropic-x2", "crl-table2-width0.2to4-noise5-x2", "random-field-x2"])
def test_the_json_tells_all_that_is_needed_to_make_lr_again(source: Path, tmp_path: Path, preset: str) -> None:
    folder = write_degraded(source, tmp_path / "set", preset).folder
    content = manifest(folder)
    assert "kernel" not in content["images"]["a.png"]
    quiet = build_degradation({**content["degradation"], "noise": [0, 0], "rounding": False})
    for name, entry in content["images"].items():
        drawn = {key: torch.tensor([value]) for key, value in entry.items() if key != "source"}
        clean = quiet.apply(as_tensor(folder / "HR" / name), drawn)
        noise = (as_tensor(folder / "LRx2" / name) - clean) * 255
        level = float(drawn["noise"]) if "noise" in drawn else float(drawn["noise_map"].mean())
        # clamping takes a little off; another kernel would leave far more
        assert 0.6 * level - 1 < noise.std() < 1.25 * level + 1


def test_without_noise_the_json_gives_lr_to_the_last_bit(source: Path, tmp_path: Path) -> None:
    folder = write_degraded(source, tmp_path / "set", "dasr-isotropic-x4", seed=5).folder
    content = manifest(folder)
    degradation = build_degradation(content["degradation"])
    for name, entry in content["images"].items():
        sigma, angle = torch.tensor([entry["sigma"]]), torch.tensor([entry["angle"]])
        lr = degradation.apply(as_tensor(folder / "HR" / name), {"kernel": gaussian_kernels(sigma, angle)})
        assert torch.equal((lr * 255).round(), (as_tensor(folder / "LRx4" / name) * 255).round())


def test_the_seed_decides(source: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_degraded(source, tmp_path / name, "dasr-anisotropic-x4", seed=seed)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    one, three = (manifest(tmp_path / name)["images"] for name in ("one", "three"))
    assert all(one[name]["noise"] != three[name]["noise"] for name in one)


def test_other_images_in_the_folder_change_nothing(source: Path, tmp_path: Path) -> None:
    write_degraded(source, tmp_path / "all", "dasr-anisotropic-x4")
    for name in ("a.bmp", "c.jpg"):
        (source / name).unlink()
    shutil.copy(source / "b.png", source / "0.png")
    write_degraded(source, tmp_path / "some", "dasr-anisotropic-x4")
    every, some = digests(tmp_path / "all"), digests(tmp_path / "some")
    for name in ("HR/b.png", "LRx4/b.png", "HR/grey.png", "LRx4/grey.png"):
        assert every[name] == some[name]
    # the same picture under another name is degraded in another way
    assert some["HR/0.png"] == some["HR/b.png"]
    assert some["LRx4/0.png"] != some["LRx4/b.png"]


def test_spatially_variant_presets_write_their_fields(source: Path, tmp_path: Path) -> None:
    write_degraded(source, tmp_path / "set", "crl-spatial-x4")
    entry = manifest(tmp_path / "set")["images"]["a.png"]
    assert torch.tensor(entry["sigma_map"]).equal(torch.tensor([[[0.2, 4.0]]]))
    assert entry["noise_map"] == [[[5.0, 50.0]]]


def test_progress_is_told(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    write_degraded(source, tmp_path / "set", "dasr-isotropic-x4", on_image=lambda *call: seen.append(call))
    assert seen == [("a.bmp", 1, 4), ("b.png", 2, 4), ("c.jpg", 3, 4), ("grey.PNG", 4, 4)]


# ---------------------------------------------------------------------------------------------- what is read


def test_turned_photographs_are_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(pixels(0, 30, 20)).save(tmp_path / "turned.png", exif=exif)
    expected = torch.from_numpy(np.rot90(pixels(0, 30, 20), -1).copy()).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(read_rgb(tmp_path / "turned.png"), expected)


def test_palettes_and_opaque_alpha_are_read(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(0, 8, 8))
    rgba = image.convert("RGBA")
    rgba.save(tmp_path / "opaque.png")
    assert torch.equal(
        read_rgb(tmp_path / "opaque.png"), torch.from_numpy(pixels(0, 8, 8)).permute(2, 0, 1)[None] / 255
    )
    palette = image.quantize(16)
    palette.save(tmp_path / "palette.png")
    expected = torch.from_numpy(np.array(palette.convert("RGB"))).permute(2, 0, 1)[None] / 255
    assert torch.equal(read_rgb(tmp_path / "palette.png"), expected)


def colour_png_of_16_bits(path: Path) -> None:
    """Written by hand, since Pillow cannot."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(12))) * 2)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def unusable(name: str, folder: Path) -> Path:
    """An image of the kind that the name says."""
    path = folder / f"{name}.{'jpg' if name in ('cmyk', 'cut') else 'png'}"
    if name == "grey16":
        Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)).save(path)
    elif name == "colour16":
        colour_png_of_16_bits(path)
    elif name == "transparent":
        Image.new("RGBA", (40, 40), (1, 2, 3, 128)).save(path)
    elif name == "cmyk":
        Image.new("CMYK", (40, 40)).save(path)
    elif name == "text":
        path.write_text("not an image")
    elif name == "small":
        Image.fromarray(pixels(0, 20, 40)).save(path)
    else:
        Image.fromarray(pixels(0, 200, 200)).save(path)
        whole = path.read_bytes()
        if name == "damaged":  # a wrong checksum in the middle
            path.write_bytes(whole[:500] + bytes(200) + whole[700:])
        else:
            path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grey16", "has more than 8 bits a channel; expected 8"),
        ("colour16", "has more than 8 bits a channel; expected 8"),
        ("transparent", "has transparent parts"),
        ("cmyk", "expected a grey or RGB image, got one of mode CMYK"),
        ("text", "cannot be read as an image"),
        ("cut", "cannot be read as an image"),
        ("damaged", "cannot be read as an image"),
        ("small", "expected images no smaller than the kernel, 21 x 21, got 20 x 40"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_and_nothing_is_left(
    name: str, message: str, source: Path, tmp_path: Path
) -> None:
    path = unusable(name, source)
    before = digests(source)
    with pytest.raises(DataError, match=message) as caught:
        write_degraded(source, tmp_path / "set", "dasr-isotropic-x4")
    assert str(caught.value).startswith(str(path))
    assert digests(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_stopping_half_way_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_degraded(source, tmp_path / "set", "dasr-isotropic-x4", on_image=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_a_folder_with_files_is_never_touched(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    write_degraded(source, target, "dasr-isotropic-x4")  # empty: fine
    whole = digests(target)
    for used in (target, source, source / "b.png"):
        with pytest.raises(DataError, match="Expected a folder to write that is missing or empty, got"):
            write_degraded(source, used, "dasr-isotropic-x4")
    assert digests(target) == whole


def test_what_lies_beside_the_target_is_left_alone(source: Path, tmp_path: Path) -> None:
    beside = tmp_path / "set.partial"
    beside.mkdir()
    (beside / "mine.txt").write_text("precious")
    write_degraded(source, tmp_path / "set", "dasr-isotropic-x4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "set", "set.partial"]
    assert (beside / "mine.txt").read_text() == "precious"
    assert (tmp_path / "set").stat().st_mode == beside.stat().st_mode


def test_other_endings(source: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(9)).save(source / "d.tif")
    Image.fromarray(pixels(9)).save(source / "e.webp", lossless=True)
    Image.fromarray(pixels(9)).save(source / "f.ppm")
    (source / "._d.tif").write_bytes(b"of macOS")
    write_degraded(source, tmp_path / "set", "dasr-isotropic-x4")
    for name in "ef":
        assert torch.equal(as_tensor(tmp_path / "set/HR/d.png"), as_tensor(tmp_path / f"set/HR/{name}.png"))


def test_two_images_for_one_file(source: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(9)).save(source / "a.jpg")
    with pytest.raises(DataError, match=r"got a\.bmp and a\.jpg in .*both be written as a\.png\. Rename one"):
        write_degraded(source, tmp_path / "set", "dasr-isotropic-x4")


def test_folders_that_are_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a folder of HR images at .*nowhere, but there is none"):
        write_degraded(tmp_path / "nowhere", tmp_path / "set", "dasr-isotropic-x4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file that ends in one of \.png, \.jpg, \.jpeg, \.bmp"):
        write_degraded(tmp_path / "empty", tmp_path / "set", "dasr-isotropic-x4")


def test_the_command_explains_a_preset_it_does_not_know(source: Path, tmp_path: Path, command_line: Run) -> None:
    done = command_line("prepare", "degrade", source, "set", "--preset", "dasr-isotropc-x4")
    assert done.returncode == 1
    assert "Did you mean 'dasr-isotropic-x4'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "set").exists()


def test_a_scale_that_the_preset_does_not_have(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has, got 8\. There is dasr-isotropic-x2"):
        write_degraded(source, tmp_path / "set", "dasr-isotropic", scale=8)
    with pytest.raises(ConfigError, match=r"needs a scale: dasr-isotropic-x2"):
        write_degraded(source, tmp_path / "set", "dasr-isotropic")
    assert not (tmp_path / "set").exists()
