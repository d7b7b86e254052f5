"""Photos super-resolved into files: what is written, what is passed over after a stop, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage import data
from torch import Tensor, nn

from contrastive_sr.data.images import as_image, as_tensor, read_rgb
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.evaluation import NamedNetwork, bicubic, sr_files, super_resolve_in_tiles, upscale
from contrastive_sr.evaluation.comparison import CHECKING
from contrastive_sr.evaluation.upscale import save_sheet


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Colour, grey, opaque with alpha, and tiny ones; and a file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = data.astronaut()[40:100, 160:250]
    for name, image in {
        "a.jpg": photo,
        "b.png": data.camera()[100:150, 100:170],
        "c.png": np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]),
        "five.by.seven.bmp": photo[:5, :7],
        "one.png": photo[:1, :1],
    }.items():
        Image.fromarray(image).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


class Counting(nn.Module):
    """A network that counts the photos it is given, and can stop in the middle."""

    def __init__(self, most: int = 99) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
        self.most, self.count = most, -1  # the first is the trial

    def forward(self, lr: Tensor) -> Tensor:
        if self.count == self.most:
            raise KeyboardInterrupt
        self.count += 1
        sr: Tensor = self.body(lr)
        return sr


def named(net: nn.Module) -> NamedNetwork:
    return NamedNetwork("net", net.eval(), net)


def test_files_hold_what_the_network_makes(photos: Path, tmp_path: Path) -> None:
    files = sr_files(photos, tmp_path / "sr")
    assert [target.name for target in files.values()] == ["a.png", "b.png", "c.png", "five.by.seven.png", "one.png"]
    net, told = Counting(), []
    assert upscale(named(net), files, 4, made_by="a", on_progress=lambda *call: told.append(call)) == 5
    assert told == [(what, done, 5) for what in (CHECKING, "net") for done in range(6)]
    for file, target in files.items():
        with torch.no_grad():
            expected = as_image(net.body(read_rgb(file)))
        with Image.open(target) as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), expected)
    assert sorted(path.name for path in (tmp_path / "sr").iterdir()) == sorted(path.name for path in files.values())


def test_colours_keep_their_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, image in {"a.jpg": data.astronaut()[:20, :20], "grey.png": data.camera()[:20, :20]}.items():
        Image.fromarray(image).save(tmp_path / name, icc_profile=profile)
    files = sr_files(tmp_path, tmp_path / "sr")
    upscale(NamedNetwork("bicubic", bicubic(4)), files, 4, made_by="a")
    found = [Image.open(target).info.get("icc_profile") for target in files.values()]
    assert found == [profile, None]


def test_tiles(photos: Path, tmp_path: Path) -> None:
    files = {photos / "a.jpg": tmp_path / "a.png"}
    net = Counting()
    upscale(named(net), files, 4, made_by="a", tile=32, overlap=8)
    assert net.count > 4
    with torch.no_grad():
        expected = as_image(super_resolve_in_tiles(net.body, read_rgb(photos / "a.jpg"), 4, 32, 8))
    np.testing.assert_array_equal(as_image(read_rgb(tmp_path / "a.png")), expected)


def test_a_stop_loses_nothing_and_the_same_call_goes_on(photos: Path, tmp_path: Path) -> None:
    files = sr_files(photos, tmp_path / "sr")
    with pytest.raises(KeyboardInterrupt):
        upscale(named(Counting(2)), files, 4, made_by="a")
    done = list(files.values())[:2]
    assert sorted((tmp_path / "sr").iterdir()) == done
    written = [path.stat().st_mtime_ns for path in done]
    (tmp_path / f"sr/.contrastive-sr-{7:016x}.unfinished").write_bytes(b"of a process that was killed")
    net = Counting()
    assert upscale(named(net), files, 4, made_by="a") == net.count == 3
    assert [path.stat().st_mtime_ns for path in done] == written
    assert sorted((tmp_path / "sr").iterdir()) == sorted(files.values())
    assert upscale(named(net), files, 4, made_by="a") == 0


def test_our_own_files_may_be_larger_than_pillow_lets_others_be(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {photos / "a.jpg": tmp_path / "a.png"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 90 // 2 + 1)  # it refuses more than twice as many
    assert upscale(named(Counting()), files, 4, made_by="a") == 1
    assert upscale(named(Counting()), files, 4, made_by="a") == 0
    save_sheet(tmp_path / "sheet.png", files, 4)
    with pytest.raises(DataError, match="exceeds limit"):
        read_rgb(tmp_path / "a.png")


def test_what_was_made_of_something_else_stays_and_is_named(photos: Path, tmp_path: Path) -> None:
    files = sr_files(photos, tmp_path / "sr")
    upscale(named(Counting()), files, 4, made_by="a")
    before = {path: path.read_bytes() for path in files.values()}

    def refused(message: str, **options: object) -> None:
        with pytest.raises(DataError, match=message):
            upscale(named(Counting()), files, 4, **{"made_by": "a", **options})  # type: ignore[arg-type]

    refused("a.png is there, and was not made of this photo in this way: expected 'photo .* network b, ", made_by="b")
    refused("in tiles of 72 with an overlap of 32', got .*, x4, whole' in it. Choose another folder", tile=72)
    Image.fromarray(data.camera()[:20, :20]).save(photos / "b.png")
    refused("b.png is there, and was not made of this photo")
    assert {path: path.read_bytes() for path in files.values()} == before
    (tmp_path / "sr" / "b.png").write_bytes(b"")
    refused("b.png is there, .* got no such note in it")


def test_what_cannot_be_used_is_named_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sr"
    with pytest.raises(DataError, match="which is not there"):
        sr_files(tmp_path / "none", out)
    with pytest.raises(DataError, match=r"a.jpg, which is a file"):
        sr_files(photos / "a.jpg", out)
    with pytest.raises(DataError, match="expected another folder to write to than that of the photos"):
        sr_files(photos, photos)
    files = sr_files(photos, out)
    with pytest.raises(ConfigError, match=r"net: .* It is a network for x4"):
        upscale(named(Counting()), files, 2, made_by="a")
    nan = Counting()
    nn.init.constant_(next(nan.parameters()), torch.nan)
    with pytest.raises(NonFiniteError, match="holds NaN"):
        upscale(named(nan), files, 4, made_by="a")
    with pytest.raises(ConfigError, match="tile: expected at least 72"):
        upscale(named(Counting()), files, 4, made_by="a", tile=40)
    for message, image in {
        "z.png has more than 8 bits a channel": Image.fromarray(np.zeros((20, 20), np.uint16)),
        "z.png has transparent parts": Image.new("RGBA", (20, 20)),
    }.items():
        image.save(photos / "z.png")
        with pytest.raises(DataError, match=message):
            upscale(named(Counting()), sr_files(photos, out), 4, made_by="a")
    (photos / "z.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"z.png cannot be read as an image"):
        upscale(named(Counting()), sr_files(photos, out), 4, made_by="a")
    (photos / "z.png").unlink()
    (photos / "z.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"z.png cannot be read \(No such file or directory\)"):
        upscale(named(Counting()), sr_files(photos, out), 4, made_by="a")
    assert not out.exists()
    (photos / "a.png").write_bytes((photos / "b.png").read_bytes())
    with pytest.raises(DataError, match=r"a.jpg and a.png would both become .*a.png. Rename one of them"):
        sr_files(photos, out)


def test_the_sheet_shows_both(tmp_path: Path) -> None:
    """Of a photo that is flat but for a corner, this corner: bicubic on the left, SR on the right."""
    lr = np.full((60, 60, 3), 100, np.uint8)
    lr[40:, 40:] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    Image.fromarray(lr).save(tmp_path / "photo.png")
    sr = as_image(bicubic(4)(as_tensor(lr)))
    sr[160:, 160:] = (255, 0, 255)
    Image.fromarray(sr).save(tmp_path / "sr.png")
    save_sheet(tmp_path / "sheet.png", {tmp_path / "photo.png": tmp_path / "sr.png"}, 4)
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    magenta = (pixels == (255, 0, 255)).all(axis=2)
    half = pixels.shape[1] // 2
    assert not magenta[:, :half].any()
    assert magenta[:, half:].mean() > 0.3
