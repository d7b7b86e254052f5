"""Checks of paired folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from contrastive_sr.data import check_high_resolution, check_pairs, list_images, pair_folders
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.prepared import how_to_prepare


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five pairs for scale 4."""
    hr, lr = tmp_path / "HR", tmp_path / "LR"
    for folder, size in ((hr, (48, 32)), (lr, (12, 8))):
        folder.mkdir()
        for index in range(5):
            Image.new("RGB", size).save(folder / f"{index}.png")
    return hr, lr


def test_pairs_by_name(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    assert pair_folders(hr, lr, 4) == [(hr / f"{i}.png", lr / f"{i}.png") for i in range(5)]


def test_other_files_do_not_matter(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    (lr / "notes.txt").write_text("")
    assert len(pair_folders(hr, lr, 4)) == 5


def test_endings_must_be_equal(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    (lr / "0.png").unlink()
    Image.new("RGB", (12, 8)).save(lr / "0.jpg")
    with pytest.raises(DataError, match=r"HR without LR: 0\.png\. LR without HR: 0\.jpg"):
        pair_folders(hr, lr, 4)


@pytest.mark.parametrize(("size", "fits"), [((48, 32), True), ((51, 35), True), ((52, 32), False), ((47, 32), False)])
def test_validation_images_may_have_a_rest(folders: tuple[Path, Path], size: tuple[int, int], fits: bool) -> None:
    hr, lr = folders
    Image.new("RGB", size).save(hr / "0.png")
    if fits:
        pair_folders(hr, lr, 4, cropped=True)
    else:
        with pytest.raises(DataError, match="1 of 5 pairs cannot be used at scale 4"):
            pair_folders(hr, lr, 4, cropped=True)


@pytest.mark.parametrize("template", ["{name}x4", "x4", "{"])
def test_a_template_needs_a_place_for_the_name(folders: tuple[Path, Path], template: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a template with \{\}"):
        pair_folders(*folders, 4, lr_name=template)


def test_template(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    for path in list(lr.iterdir()):
        path.rename(lr / f"{path.stem}x4.png")
    assert pair_folders(hr, lr, 4, lr_name="{}x4")[4] == (hr / "4.png", lr / "4x4.png")


def test_images_below_and_a_single_ending(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    assert list_images(hr.parent, recursive=True) == sorted([*hr.iterdir(), *lr.iterdir()])
    with pytest.raises(DataError, match=r"no file that ends in one of \.jpg"):
        list_images(hr, suffixes=".jpg")


def test_grey_images_pass(folders: tuple[Path, Path]) -> None:
    Image.new("L", (48, 32)).save(folders[0] / "0.png")
    pair_folders(*folders, 4)


def test_missing_and_empty_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a folder of images at .*nowhere, but there is none"):
        pair_folders(tmp_path / "nowhere", folders[1], 4)
    with pytest.raises(DataError, match="relative ones start at the folder the command is run in"):
        list_images("nowhere")
    with pytest.raises(DataError, match=r"run in\. `contrastive-sr prepare realsr SRC` writes it\."):
        list_images("data/RealSR_x4/train/HR", hint=how_to_prepare)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"Expected images in .*empty"):
        pair_folders(folders[0], tmp_path / "empty", 4)


def test_images_without_a_partner_are_named(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    for index in range(4):
        (lr / f"{index}.png").unlink()
    Image.new("RGB", (12, 8)).save(lr / "other.png")
    with pytest.raises(DataError, match=r"got 5 HR images .* 2 LR images") as caught:
        pair_folders(hr, lr, 4)
    assert "HR without LR: 0.png, 1.png, 2.png, and 1 more. LR without HR: other.png." in str(caught.value)


def test_lists_of_files(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    check_pairs([hr / "1.png"], [lr / "1.png"], 4)
    with pytest.raises(DataError, match="1 LR and 2 HR"):
        check_pairs([hr / "1.png", hr / "2.png"], [lr / "1.png"], 4)
    with pytest.raises(DataError, match="at least one pair"):
        check_pairs([], [], 4)
    with pytest.raises(DataError, match=r"neither there: 9\.png"):
        check_pairs([hr / "1.png", hr / "9.png"], [lr / "1.png", lr / "9.png"], 4)


def test_sizes(folders: tuple[Path, Path]) -> None:
    hr, lr = folders
    Image.new("RGB", (47, 32)).save(hr / "1.png")
    with pytest.raises(DataError, match=r"1 of 5 pairs .*1\.png is 47 x 32 in HR and 12 x 8 in LR.*multiple of 4"):
        pair_folders(hr, lr, 4)
    files = [sorted(folder.iterdir()) for folder in (hr, lr)]
    check_pairs(*files, 4, check_sizes=False)


def test_unreadable_image(folders: tuple[Path, Path]) -> None:
    (folders[1] / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3\.png cannot be read as an image"):
        pair_folders(*folders, 4)


def test_hr_images_are_large_enough_and_readable(tmp_path: Path) -> None:
    files = [tmp_path / f"{size}.png" for size in (24, 64, 96)]
    for file, size in zip(files, (24, 64, 96), strict=True):
        Image.new("RGB", (size, 80)).save(file)
    check_high_resolution(files, 24)
    with pytest.raises(DataError, match=r"2 of 3 HR images cannot be used: 24\.png is 24 x 80; 64\.png is 64 x 80"):
        check_high_resolution(files, 65)
    files[1].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"64\.png cannot be read as an image"):
        check_high_resolution(files, 8)
