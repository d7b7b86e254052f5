"""Image files: which count, how they are read, and that those that cannot be read as they are meant are named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from contrastive_sr.data import check_high_resolution, list_images, read_rgb
from contrastive_sr.data.images import as_image, check_readable, image_size
from contrastive_sr.data.prepare.archives import images_in
from contrastive_sr.errors import DataError


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_cut_off_image_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"some.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    check_readable(data, path)
    for part in (data[: len(data) // 2], data[:-20], b"", b"no image at all"):
        with pytest.raises(DataError, match=rf"some\.{ending} cannot be read as an image: {len(part)} bytes"):
            check_readable(part, path)


def pixels(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_hidden_files_do_not_count_anywhere(tmp_path: Path) -> None:
    for name in ("b.PNG", "below/a.ppm"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels()).save(path)
    for name in (".hidden.png", "._b.PNG", "__MACOSX/b.png", ".cache/c.png", "below/._a.ppm", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert list_images(tmp_path) == images_in(tmp_path) == [tmp_path / "b.PNG"]
    both = [tmp_path / "b.PNG", tmp_path / "below" / "a.ppm"]
    assert list_images(tmp_path, recursive=True) == images_in(tmp_path, below=True) == both


def test_a_folder_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError, match=r"aaa cannot be read \(File name too long\). Check its name and permissions"):
        list_images("a" * 300)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_turned_photographs_have_one_size_for_headers_pixels_and_trainings(ending: str, tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"turned.{ending}"
        Image.fromarray(pixels()).save(path, exif=exif)
        sizes = {image_size(path), tuple(read_rgb(path).shape[:1:-1])}
        in_training = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert sizes == {(9, 6) if orientation < 5 else (6, 9)}
        difference = as_image(read_rgb(path)).astype(int) - in_training
        assert np.abs(difference).max() <= (3 if ending == "jpg" else 0)  # two decoders of JPEG


def with_orientation_in_xmp(orientation: int) -> PngImagePlugin.PngInfo:
    """As some programs write it, which Pillow obeys too."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<rdf:Description tiff:Orientation="{orientation}"/>')
    return info


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_in_xmp_counts_for_headers_too(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    Image.fromarray(pixels()).save(path, pnginfo=with_orientation_in_xmp(orientation))
    assert image_size(path) == tuple(read_rgb(path).shape[:1:-1]) == ((9, 6) if orientation == 3 else (6, 9))


def test_a_link_that_leads_nowhere_is_an_image_that_is_missing(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "fetched/b.png")
    _, missing = list_images(tmp_path)
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image \(No such file or directory\)"):
        read_rgb(missing)


def test_what_would_be_read_otherwise_than_meant_is_refused_by_name(tmp_path: Path) -> None:
    deep = np.arange(6 * 9 * 3, dtype=np.uint16).reshape(6, 9, 3) * 400
    for name, image in {
        "d.png": deep,
        "d.tif": deep,
        "d.ppm": deep,
        "g.png": deep[..., 0],
        "g.tif": deep[..., 0],
    }.items():
        cv2.imwrite(str(tmp_path / name), image)
    tifffile.imwrite(tmp_path / "dp.tif", np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate")
    four = np.dstack([pixels(), pixels()[..., :1]])
    for name in ("c.jpg", "c.tif"):
        Image.fromarray(four, "CMYK").save(tmp_path / name)
    for name in ("t.png", "t.tif", "t.webp"):
        Image.fromarray(four, "RGBA").save(tmp_path / name, lossless=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels()).save(tmp_path / "w.webp", exif=turned)
    reasons = {
        "d": "more than 8 bits",
        "g": "more than 8 bits",
        "c": "of mode CMYK",
        "t": "transparent",
        "w": "upright",
    }
    for path in list_images(tmp_path):
        for read in (read_rgb, image_size):
            with pytest.raises(DataError, match=rf"{path.name}.*{reasons[path.name[0]]}"):
                read(path)
        with pytest.raises(DataError, match=rf"1 of 1 HR images cannot be used: .*{path.name}"):
            check_high_resolution([path], 4)


def test_only_formats_of_images_are_opened_and_limits_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.png"
    Image.fromarray(pixels()).save(path, "BMP")
    assert image_size(path) == (9, 6)  # its content counts
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"  # which Pillow has Ghostscript draw
    for read in (read_rgb, image_size):
        with pytest.raises(DataError, match=r"some\.png cannot be read as an image \(unknown format: none of PNG"):
            read(path)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", "0" * 2_000_000, zip=True)
    Image.fromarray(pixels()).save(tmp_path / "texts.png", pnginfo=texts)
    for content, reason in (
        (b"P5 60000 60000 255\n", "exceeds limit"),
        ((tmp_path / "texts.png").read_bytes(), "MAX_TEXT_CHUNK"),
    ):
        path.write_bytes(content)
        for read in (read_rgb, image_size):
            with pytest.raises(DataError, match=rf"some\.png cannot be read as an image \(.*{reason}"):
                read(path)
