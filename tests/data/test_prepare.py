"""`contrastive-sr prepare folder|div2k|flickr2k|realsr|...`: on small archives of the shape of the real ones."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from full_disk import small_disk
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from contrastive_sr.data.demo import photo_path
from contrastive_sr.data.prepare import archives, pairs
from contrastive_sr.data.prepare.images import matlab_bicubic
from contrastive_sr.data.prepare.links import join_df2k
from contrastive_sr.data.prepare.parts import Cut, Part
from contrastive_sr.data.prepare.run import Prepared, prepare
from contrastive_sr.errors import DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.prepared import link_for_other_host

Run = Callable[..., subprocess.CompletedProcess[str]]
Pixels = npt.NDArray[np.uint8]
SMALL = Cut(size=48, step=24)
PROJECT = Path(__file__).resolve().parents[2]


def photo(width: int, height: int, name: str = "astronaut.png") -> Image.Image:
    with Image.open(photo_path(name)) as image:
        small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    small.info.clear()  # a colour profile
    return small


def pixels(path: Path) -> Pixels:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.array(image)


def write(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def bicubic(image: Pixels, scale: int) -> Pixels:
    return matlab_bicubic(torch.from_numpy(image.copy()), scale).numpy()


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def prepare_folder(
    source: Path, out: Path, scales: tuple[int, ...] = (4,), cut: Cut | None = SMALL, test: bool = False, **more: Any
) -> Prepared:
    return prepare(archives.folder_parts(source, out, scales, cut, test), out, "folder", **more)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, one of them in a folder below, of sizes that are no multiples."""
    folder = tmp_path / "photos"
    write(photo(101, 77), folder / "a.png")
    write(photo(73, 50, "coffee.png"), folder / "b.jpg", quality=95)
    write(photo(60, 98, "chelsea.png"), folder / "more" / "a.png")
    return folder


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    """DIV2K as it is extracted: LR images at x4 for training, none for validation."""
    root = tmp_path / "DIV2K"
    for number, name in enumerate(("astronaut.png", "coffee.png", "chelsea.png"), start=1):
        image = photo(120, 72 + 12 * number, name)
        write(image, root / f"DIV2K_train_HR/{number:04d}.png")
        # recognisable: not what this command would make
        small = image.resize((image.width // 4, image.height // 4), Image.Resampling.NEAREST)
        write(small, root / f"DIV2K_train_LR_bicubic/X4/{number:04d}x4.png")
    write(photo(96, 72, "rocket.jpg"), root / "DIV2K_valid_HR/0801.png")
    return root


@pytest.fixture
def realsr(tmp_path: Path) -> Path:
    root = tmp_path / "RealSR(V3)"
    for camera in ("Canon", "Nikon"):
        for kind, count in (("Train", 2), ("Test", 1)):
            for number in range(1, count + 1):
                image = photo(80 + 8 * number, 64)
                folder = root / camera / kind / "4"
                write(image, folder / f"{camera}_{number:03d}_HR.png")
                small = image.resize((image.width // 4, image.height // 4), Image.Resampling.BOX)
                write(small, folder / f"{camera}_{number:03d}_LR4.png")
    return root


# ----------------------------------------------------------------------------------------------- single pieces


@pytest.mark.basicsr
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_matlab_s(scale: int) -> None:
    image = np.array(photo(120, 96))
    imresize = import_basicsr("basicsr.utils.matlab_functions").imresize
    expected = np.clip(imresize(image / 255.0, 1 / scale), 0, 1) * 255
    made = bicubic(image, scale).astype(float)
    # rounded to 8 bits, and no further away than that
    assert np.abs(made - expected).max() < 0.5 + 1e-3


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_rounds_halves_up(scale: int) -> None:
    checkerboard = np.indices((48, 48)).sum(0).astype(np.uint8) % 2  # every mean is one half
    assert (bicubic(checkerboard[..., None].repeat(3, 2), scale)[2:-2, 2:-2] == 1).all()


@pytest.mark.parametrize("cut", [Cut(480, 240), Cut(96, 48, 24), Cut(120, 120), Cut(48, 96)])
def test_sub_images_begin_where_the_hosts_begin_them(cut: Cut) -> None:
    for length in range(cut.size + 1, 5 * cut.size, 7):
        expected = list(np.arange(0, length - cut.size + 1, cut.step))
        if length - (expected[-1] + cut.size) > cut.thresh:
            expected.append(length - cut.size)
        assert cut.starts(length) == expected
    assert cut.starts(cut.size) == cut.starts(cut.size // 2) == [0]


# ---------------------------------------------------------------------------------------------- any folder


def test_the_command_writes_sub_images_lr_and_lists(photos: Path, tmp_path: Path, command_line: Run) -> None:
    write(photo(40, 100), photos / "narrow.png")
    sizes = "--size", "48", "--step", "24", "--workers", "1"
    done = command_line("prepare", "folder", photos, "datasets/Mine", "--scale", "2", "--scale", "3", *sizes)
    assert done.returncode == 0, done.stderr
    assert "datasets/Mine/Mine_train_HR_sub: 4 of 4 images in" in done.stdout
    assert "datasets/Mine/Mine_train_LR_bicubic/X3_sub: LR images at x3, made from HR, MATLAB-style" in done.stdout
    assert "datasets/Mine: data/Mine is a link to it" in done.stdout
    assert "note: 3 with a side shorter than 48, kept whole: narrow_s001.png, narrow_s002.png" in done.stdout
    root = tmp_path / "data/Mine"
    whole = pixels(photos / "a.png")[:72, :96]  # multiples of 6
    boxes = SMALL.boxes(72, 96)
    assert len(boxes) == 2 * 3
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        name = f"a_s{number:03d}.png"
        assert np.array_equal(pixels(root / "Mine_train_HR_sub" / name), whole[top:bottom, left:right])
        for scale in (2, 3):
            small = bicubic(whole, scale)[top // scale : bottom // scale, left // scale : right // scale]
            assert np.array_equal(pixels(root / f"Mine_train_LR_bicubic/X{scale}_sub" / name), small)
    assert pixels(root / "Mine_train_HR_sub/narrow_s001.png").shape == (48, 36, 3)
    assert pixels(root / "Mine_train_LR_bicubic/X3_sub/narrow_s001.png").shape == (16, 12, 3)
    lines = (root / "meta_info_Minesub_GT.txt").read_text().splitlines()
    assert lines[0] == "a_s001.png (48,48,3)"
    assert [line.split()[0] for line in lines] == files_below(root / "Mine_train_HR_sub")
    assert any(line.startswith("more_a_s001.png") for line in lines)


def test_a_test_set_is_as_basicsr_names_it(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "Set3"
    prepare_folder(photos, out, test=True)
    assert files_below(out) == sorted(
        ["meta_info_Set3_test_GT.txt", "prepare.jsonl"]
        + [f"{folder}/{name}.png" for folder in ("GTmod12", "LRbicx4") for name in ("a", "b", "more_a")]
    )
    hr = pixels(photos / "a.png")[:72, :96]
    assert np.array_equal(pixels(out / "GTmod12/a.png"), hr)
    assert np.array_equal(pixels(out / "LRbicx4/a.png"), bicubic(hr, 4))


def test_whole_images_that_need_no_change_are_no_second_copy(tmp_path: Path) -> None:
    fits = write(photo(96, 48), tmp_path / "photos/fits.png")
    write(photo(97, 48), tmp_path / "photos/cropped.png")
    write(photo(96, 48).convert("L"), tmp_path / "photos/grey.png")
    turned = PngInfo()
    turned.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="3"/>')
    photo(96, 48).save(tmp_path / "photos/turned.png", pnginfo=turned)
    longer = write(photo(96, 48), tmp_path / "photos/longer.png")
    longer.write_bytes(longer.read_bytes() + b"\n")
    assert prepare_folder(tmp_path / "photos", tmp_path / "set", cut=None).problems == []
    hr = tmp_path / "set/set_train_HR"
    assert (hr / "fits.png").samefile(fits)
    assert (pixels(hr / "turned.png") == pixels(fits)[::-1, ::-1]).all()
    assert (pixels(hr / "longer.png") == pixels(fits)).all()
    assert not (hr / "cropped.png").samefile(tmp_path / "photos/cropped.png")
    grey = pixels(hr / "grey.png")
    assert (grey == grey[..., :1]).all()


def test_every_image_that_cannot_be_used_is_named(photos: Path, tmp_path: Path, command_line: Run) -> None:
    whole = write(photo(100, 60), photos / "truncated.png").read_bytes()
    (photos / "truncated.png").write_bytes(whole[: len(whole) // 2])
    write(photo(100, 60), photos / "cut.jpg")
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:-500])
    (photos / "empty.png").touch()
    (photos / "text.png").write_text("no image")
    clear = photo(60, 60).convert("RGBA")
    clear.putalpha(128)
    write(clear, photos / "clear.png")
    write(Image.fromarray(np.zeros((60, 60), np.uint16)), photos / "deep.png")
    write(photo(60, 6), photos / "flat.png")
    (photos / ".hidden.png").write_text("of a file manager")
    done = command_line("prepare", "folder", photos, "set", "--size", "48", "--step", "24", "--workers", "1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "3 of 10 images" in done.stdout
    assert "7 thing(s) are not as they should be. All else is written" in done.stderr
    for name, why in (
        ("truncated.png", "cannot be read"),
        ("cut.jpg", "cannot be read"),
        ("empty.png", "cannot be read"),
        ("text.png", "cannot be read"),
        ("clear.png", "transparent"),
        ("deep.png", "more than 8 bits"),
        ("flat.png", "60 x 6; expected sides of at least 8"),
    ):
        (line,) = [line for line in done.stderr.splitlines() if f"/{name}" in line]
        assert why in line
    assert "hidden" not in done.stderr
    names = {name.rpartition("_s")[0] for name in files_below(tmp_path / "set/set_train_HR_sub")}
    assert names == {"a", "b", "more_a"}

    # mended, it is added; the others are not made again
    before = (tmp_path / "set/set_train_HR_sub/a_s001.png").stat()
    (photos / "truncated.png").write_bytes(whole)
    for name in ("cut.jpg", "empty.png", "text.png", "clear.png", "deep.png", "flat.png"):
        (photos / name).unlink()
    again = prepare_folder(photos, tmp_path / "set")
    assert (again.reused, again.problems) == (3, [])
    assert (tmp_path / "set/set_train_HR_sub/truncated_s001.png").is_file()
    after = (tmp_path / "set/set_train_HR_sub/a_s001.png").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_names_that_would_meet_are_refused_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    write(photo(60, 60), photos / "a.jpg")
    write(photo(60, 60), photos / "more_a.bmp")
    with pytest.raises(DataError, match=r"2 that would be written under one.*a\.jpg and .*a\.png -> a\.png.*more_a"):
        prepare_folder(photos, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_names_are_made_fit_for_lists_and_keys(tmp_path: Path) -> None:
    for name in ("my photo.v2 ü", "my photo.v2 ö", "图", "图" * 70, "图" * 71):
        write(photo(60, 60), tmp_path / f"photos/{name}.png")
    prepare_folder(tmp_path / "photos", tmp_path / "set", cut=None, lmdb=True)
    *plain, long, longer = files_below(tmp_path / "set/set_train_HR")
    assert plain == ["my_photo_v2_u00f6.png", "my_photo_v2_u00fc.png", "u56fe.png"]
    assert len(long) == len(longer) == 204
    assert long != longer


# --------------------------------------------------------------------------------------- stopping and going on


def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    for number in range(10):
        write(photo(480, 360).rotate(number), tmp_path / f"photos/{number}.png", compress_level=1)
    command = [sys.executable, "-m", "contrastive_sr.cli", "prepare", "folder", "../photos", "set", "--lmdb"]
    command += ["--size", "96", "--step", "48", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
    journal = killed / "set/prepare.jsonl"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=killed, env=environment, **quiet)
    while process.poll() is None and (not journal.exists() or len(journal.read_text().splitlines()) < 3):
        time.sleep(0.02)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    while any(Path(f"/proc/{worker}").exists() for worker in workers):  # they end with it
        time.sleep(0.02)
    done = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert 2 <= len(done) < 10
    journal.write_text(journal.read_text() + '{"image": "half a li')  # as a kill in the middle of a line leaves it
    (killed / f"set/set_train_HR_sub/.contrastive-sr-{7:016x}.unfinished").write_bytes(b"half an image")
    times = {name: (killed / "set" / name).stat().st_mtime_ns for entry in done for name in entry["wrote"]}

    again = subprocess.run(command, cwd=killed, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{len(done)} images were there from an earlier run" in again.stdout
    assert {name: (killed / "set" / name).stat().st_mtime_ns for name in times} == times
    prepare_folder(tmp_path / "photos", whole / "set", cut=Cut(96, 48), lmdb=True)
    assert digests(killed) == digests(whole)


def test_files_that_are_gone_or_cut_off_are_made_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    prepare_folder(photos, out, lmdb=True)
    expected = digests(out)
    (out / "set_train_HR_sub/a_s002.png").unlink()
    short = out / "set_train_LR_bicubic/X4_sub/b_s001.png"
    short.write_bytes(short.read_bytes()[:-20])
    (out / "set_train_HR_sub.lmdb/meta_info.txt").unlink()
    again = prepare_folder(photos, out, lmdb=True)
    assert (again.reused, again.problems) == (1, [])
    assert digests(out) == expected


def test_a_changed_image_is_made_again_and_its_old_pieces_go(photos: Path, tmp_path: Path) -> None:
    prepare_folder(photos, tmp_path / "set", lmdb=True)
    write(photo(60, 60, "coffee.png"), photos / "a.png")
    again = prepare_folder(photos, tmp_path / "set", lmdb=True)
    assert (again.reused, again.problems) == (2, [])
    prepare_folder(photos, tmp_path / "fresh/set", lmdb=True)
    assert digests(tmp_path / "set") == digests(tmp_path / "fresh/set")


def test_a_changed_image_of_equal_length_gets_into_the_database(tmp_path: Path) -> None:
    for folder in ("set", "fresh/set"):
        write(
            photo(96, 48, "coffee.png" if folder == "set" else "chelsea.png"),
            tmp_path / "photos/a.png",
            compress_level=0,
        )
        prepare_folder(tmp_path / "photos", tmp_path / folder, cut=None, lmdb=True)
    prepare_folder(tmp_path / "photos", tmp_path / "set", cut=None, lmdb=True)
    assert digests(tmp_path / "set") == digests(tmp_path / "fresh/set")


def test_damage_and_strangers_are_found_at_the_end(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    prepare_folder(photos, out)
    damaged = out / "set_train_HR_sub/a_s001.png"
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    (photos / "b.jpg").unlink()
    folder = out / "set_train_LR_bicubic/X4_sub"
    (folder / "other.png").touch()
    data = (folder / "a_s002.png").read_bytes()
    (folder / "a_s002.png").write_bytes(data[:16] + (13).to_bytes(4, "big") + data[20:])  # another width
    hr, damage, lr, size = prepare_folder(photos, out).problems
    assert "X4_sub/a_s002.png is not as it was written. Remove it" in size
    assert "set_train_HR_sub has 2 files that are not of these images: b_s001.png, b_s002.png" in hr
    assert "a_s001.png is not as it was written. Remove it" in damage
    assert "X4_sub has 3 files that are not of these images: b_s001.png, b_s002.png, other.png" in lr


def test_other_settings_are_refused_with_what_changed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    prepare_folder(photos, out)
    before = digests(out)
    with pytest.raises(DataError, match="sub-images of images was size 48, step 24, thresh 0 and is now size 96"):
        prepare_folder(photos, out, cut=Cut(96, 24))
    with pytest.raises(DataError, match=r"scales of images was \[4\] and is now \[2, 4\].*Choose another OUT"):
        prepare_folder(photos, out, scales=(2, 4))
    assert digests(out) == before


def test_parts_of_one_folder_do_not_forget_each_other(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    for _ in range(2):
        results = [prepare_folder(photos, out, test=test) for test in (False, True)]
    assert [result.reused for result in results] == [3, 3]


def test_files_of_another_origin_are_left_alone(photos: Path, tmp_path: Path) -> None:
    write(photo(48, 48), tmp_path / "set/set_train_HR_sub/x.png")
    with pytest.raises(DataError, match=r"got files of another origin in .*set_train_HR_sub\. Move them away"):
        prepare_folder(photos, tmp_path / "set")
    assert files_below(tmp_path / "set") == ["set_train_HR_sub/x.png"]


def test_a_damaged_journal_is_an_error(photos: Path, tmp_path: Path) -> None:
    prepare_folder(photos, tmp_path / "set")
    for content in (b"", b"\xff", b"[" * 100_000, b'{"settings": 1}', b'{"settings": {"scale": NaN}}'):
        (tmp_path / "set/prepare.jsonl").write_bytes(content)
        with pytest.raises(DataError, match=r"prepare.jsonl is damaged.*Remove it and the folders set_train_HR_sub"):
            prepare_folder(photos, tmp_path / "set")


@pytest.mark.parametrize("name", ["../victim.png", "{root}/victim.png", "set_train_HR_sub/c.png", "prepare.jsonl"])
def test_a_journal_removes_nothing_but_files_of_its_images(name: str, photos: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.png"
    victim.write_text("mine")
    out = tmp_path / "set"
    prepare_folder(photos, out)
    lines = (out / "prepare.jsonl").read_text().splitlines()
    entry = json.loads(lines[1])
    entry["wrote"][name.format(root=tmp_path)] = [4, 1, 1]
    entry["read"] = [[0, 0]]  # as of an image that was changed
    (out / "prepare.jsonl").write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]) + "\n")
    before = files_below(out)
    with pytest.raises(DataError, match=r"expected set_train_HR_sub/a to have written files of its own name"):
        prepare_folder(photos, out)
    assert victim.read_text() == "mine"
    assert files_below(out) == before


def test_a_folder_that_leads_out_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/set_train_HR_sub").symlink_to(tmp_path / "other")
    with pytest.raises(DataError, match=r"set_train_HR_sub leads to .*other, outside of the data set"):
        prepare_folder(photos, tmp_path / "set")
    assert not files_below(tmp_path / "other")


def test_a_database_of_another_origin_stays(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    prepare_folder(photos, out)
    write(photo(60, 60, "coffee.png"), photos / "a.png")  # so that databases are to be made anew
    database = out / "set_train_HR_sub.lmdb"
    database.mkdir()
    (database / "data.mdb").write_text("mine")
    with pytest.raises(DataError, match=r"set_train_HR_sub.lmdb was not written by this command.*Move it away"):
        prepare_folder(photos, out, lmdb=True)
    (database / "notes.txt").touch()
    with pytest.raises(DataError, match=r"has other files in it, such as notes.txt"):
        prepare_folder(photos, out, lmdb=True)
    assert (database / "data.mdb").read_text() == "mine"


def test_a_full_disk_ends_it_and_the_same_command_goes_on(photos: Path, tmp_path: Path) -> None:
    with small_disk(1000), pytest.raises(OSError, match="File too large"):
        prepare_folder(photos, tmp_path / "set")
    assert files_below(tmp_path / "set") == ["prepare.jsonl"]
    assert prepare_folder(photos, tmp_path / "set").problems == []


def test_two_commands_on_one_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    def second(what: str, done: int, total: int) -> None:
        with pytest.raises(DataError, match="Another `contrastive-sr prepare` is at work"):
            prepare_folder(photos, tmp_path / "set")

    prepare_folder(photos, tmp_path / "set", on_progress=second)
    prepare_folder(photos, tmp_path / "set")


def test_a_disk_that_is_too_small_is_told_before_the_start(tmp_path: Path) -> None:
    image = write(Image.new("RGB", (6000, 6000)), tmp_path / "photos/0.jpg")
    for number in range(1, 100):
        (tmp_path / f"photos/{number}.jpg").symlink_to(image)
    # each sub-image is 12 pixels from the next: every pixel is written 1600 times
    with pytest.raises(DataError, match=r"About \d+\.\d GB are needed in .*set, and \d+\.\d GB are free"):
        prepare_folder(tmp_path / "photos", tmp_path / "set", cut=Cut(480, 12))
    assert files_below(tmp_path / "set") == ["prepare.jsonl"]


# ------------------------------------------------------------------------------------------- the named data sets


def parts_of(archive: Path, name: str) -> list[Part]:
    if name == "RealSR":
        return pairs.paired_parts(pairs.REALSR, archive, 4, None)
    find = archives.div2k_parts if name == "DIV2K" else archives.flickr2k_parts
    return find(archive, [4], SMALL)


def test_div2k_takes_the_archive_s_lr_images(div2k: Path, tmp_path: Path, command_line: Run) -> None:
    sizes = "--size", "48", "--step", "24", "--workers", "1"
    done = command_line("prepare", "div2k", div2k.parent, *sizes)
    assert done.returncode == 0, done.stderr
    assert "datasets/DIV2K/DIV2K_train_LR_bicubic/X4_sub: LR images at x4, the archive's own" in done.stdout
    assert "datasets/DIV2K/DIV2K_valid/LRx4: LR images at x4, made from HR" in done.stdout
    assert "DIV2K_train_HR has 3 images; the whole archive has 800" in done.stdout
    root = tmp_path / "data/DIV2K"
    hr, lr = pixels(div2k / "DIV2K_train_HR/0002.png"), pixels(div2k / "DIV2K_train_LR_bicubic/X4/0002x4.png")
    boxes = SMALL.boxes(*hr.shape[:2])
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        name = f"0002_s{number:03d}.png"
        assert np.array_equal(pixels(root / "DIV2K_train_HR_sub" / name), hr[top:bottom, left:right])
        small = lr[top // 4 : bottom // 4, left // 4 : right // 4]
        assert np.array_equal(pixels(root / "DIV2K_train_LR_bicubic/X4_sub" / name), small)
    assert np.array_equal(
        pixels(root / "DIV2K_valid/LRx4/0801.png"), bicubic(pixels(root / "DIV2K_valid/HR/0801.png"), 4)
    )


def test_div2k_may_be_written_beside_itself(div2k: Path) -> None:
    before = digests(div2k)
    parts = archives.div2k_parts(div2k / "DIV2K_train_HR", [2, 4], SMALL)
    archives.check_apart(parts, div2k, div2k, below=False)
    prepared = prepare(parts, div2k, "div2k")
    assert prepared.problems == []
    assert before.items() <= digests(div2k).items()
    assert parts[0].own_scales == [4]
    assert (div2k / "DIV2K_train_LR_bicubic/X2_sub/0001_s001.png").is_file()


def test_archives_with_wrong_lr_images_are_told(div2k: Path, tmp_path: Path) -> None:
    folder = div2k / "DIV2K_train_LR_bicubic/X4"
    write(photo(31, 20), folder / "0001x4.png")
    (folder / "0002x4.png").unlink()
    write(photo(30, 20), folder / "0009x4.png")
    prepared = prepare(parts_of(div2k, "DIV2K"), tmp_path / "set", "div2k")
    size, alone, missing = sorted(prepared.problems, key=lambda text: ("0001x4" not in text, "0009" not in text))
    assert "0001x4.png is 31 x 20; expected 30 x 21, as " in size
    assert "0009x4.png has no HR image" in alone
    assert "0002.png has no LR image at x4: expected" in missing
    assert prepared.parts[0].images == 1
    assert {name[:4] for name in files_below(tmp_path / "set/DIV2K_train_HR_sub")} == {"0003"}


def test_lr_images_that_come_later_are_other_settings(div2k: Path, tmp_path: Path) -> None:
    lr = div2k / "DIV2K_train_LR_bicubic"
    lr.rename(tmp_path / "later")
    prepare(parts_of(div2k, "DIV2K"), tmp_path / "set", "div2k")
    (tmp_path / "later").rename(lr)
    with pytest.raises(DataError, match="LR x4 of training images was made and is now the archive's"):
        prepare(parts_of(div2k, "DIV2K"), tmp_path / "set", "div2k")


def test_df2k_is_made_of_links(div2k: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        write(photo(96, 72), tmp_path / f"Flickr2K/Flickr2K_HR/{number:06d}.png")
    datasets = tmp_path / "datasets"
    prepare(parts_of(div2k, "DIV2K"), datasets / "DIV2K", "div2k")
    assert join_df2k(datasets / "DIV2K") is None
    prepare(parts_of(tmp_path / "Flickr2K", "Flickr2K"), datasets / "Flickr2K", "flickr2k")
    joint = join_df2k(datasets / "Flickr2K")
    names = files_below(datasets / "DIV2K/DIV2K_train_HR_sub") + files_below(datasets / "Flickr2K/Flickr2K_HR_sub")
    assert joint == (datasets / "DF2K", len(names))
    (datasets / "DF2K/DF2K_train_HR_sub/old.png").symlink_to("nowhere")
    datasets = datasets.rename(tmp_path / "moved")
    join_df2k(datasets / "DIV2K")
    assert files_below(datasets / "DF2K/DF2K_train_HR_sub") == sorted(names)
    assert all(path.is_symlink() for path in (datasets / "DF2K/DF2K_train_HR_sub").iterdir())


def test_links_of_others_in_df2k_stay(tmp_path: Path) -> None:
    for name in ("DIV2K", "Flickr2K"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prepare.jsonl").touch()
    joint = tmp_path / "DF2K/DF2K_train_HR_sub"
    joint.mkdir(parents=True)
    (joint / "mine.png").symlink_to("/nowhere/mine.png")
    (joint / "gone.png").symlink_to("../../DIV2K/DIV2K_train_HR_sub/gone.png")  # as this command made it
    assert join_df2k(tmp_path / "DIV2K") == (tmp_path / "DF2K", 0)
    assert [path.name for path in joint.iterdir()] == ["mine.png"]


def test_realsr_gets_equal_names_without_copies(realsr: Path, tmp_path: Path, command_line: Run) -> None:
    done = command_line("prepare", "realsr", realsr, "--workers", "1")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "datasets/RealSR_x4"
    train, test = (
        ["Canon_001.png", "Canon_002.png", "Nikon_001.png", "Nikon_002.png"],
        ["Canon_001.png", "Nikon_001.png"],
    )
    for kind, names in (("train", train), ("test", test)):
        assert files_below(root / kind / "HR") == files_below(root / kind / "LR") == names
    for name, original in (("HR", "HR"), ("LR", "LR4")):
        assert (root / f"train/{name}/Nikon_002.png").samefile(realsr / f"Nikon/Train/4/Nikon_002_{original}.png")


def test_realsr_in_folders_hr_and_lr(tmp_path: Path) -> None:
    for name in ("x_HR", "y"):
        write(photo(80, 64), tmp_path / f"pairs/HR/{name}.png")
    for name in ("x_LR4", "y"):
        write(photo(20, 16), tmp_path / f"pairs/LR/{name}.png")
    (part,) = parts_of(tmp_path / "pairs", "RealSR")
    assert part.notes == ["there are no test pairs, which the shipped configs validate on"]
    prepare([part], tmp_path / "set", "realsr")
    assert files_below(tmp_path / "set/train") == ["HR/x.png", "HR/y.png", "LR/x.png", "LR/y.png"]


def test_realsr_of_an_early_version_is_told(realsr: Path, tmp_path: Path) -> None:
    write(photo(88, 64), realsr / "Canon/Train/4/Canon_001_LR4.png")
    (problem,) = prepare(parts_of(realsr, "RealSR"), tmp_path / "set", "realsr").problems
    assert "Canon_001_LR4.png is 88 x 64; expected 22 x 16" in problem
    assert "before its version 3" in problem


def test_realsr_of_one_camera_with_clean_images_as_in_cria_cl(
    realsr: Path, div2k: Path, tmp_path: Path, command_line: Run
) -> None:
    arguments = "--camera", "Canon", "--clean", div2k / "DIV2K_train_HR", "--workers", "1"
    done = command_line("prepare", "realsr", realsr, *arguments)
    assert done.returncode == 0, done.stderr
    assert "train/LR: LR images at x4, the archive's own, and 3 made from HR" in done.stdout
    root = tmp_path / "datasets/RealSR_x4"
    names = ["Canon_001.png", "Canon_002.png", "clean_0001.png", "clean_0002.png", "clean_0003.png"]
    assert files_below(root / "train/HR") == files_below(root / "train/LR") == names
    assert files_below(root / "test/HR") == files_below(root / "test/LR") == ["Canon_001.png"]
    hr = pixels(div2k / "DIV2K_train_HR/0002.png")
    assert np.array_equal(pixels(root / "train/LR/clean_0002.png"), bicubic(hr, 4))
    assert (root / "train/LR/Canon_002.png").samefile(realsr / "Canon/Train/4/Canon_002_LR4.png")


def test_realsr_with_images_that_have_no_partner(realsr: Path, tmp_path: Path) -> None:
    folder = realsr / "Nikon/Train/4"
    (folder / "Nikon_001_LR4.png").unlink()
    (folder / "Nikon_002_HR.png").unlink()
    prepared = prepare(parts_of(realsr, "RealSR"), tmp_path / "set", "realsr")
    lr, hr = sorted(prepared.problems, key=lambda text: "LR4" not in text)
    assert "Nikon_002_LR4.png has no HR image" in lr
    assert "Nikon_001_HR.png has no LR image. Add it" in hr
    assert files_below(tmp_path / "set/train/HR") == ["Canon_001.png", "Canon_002.png"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_drealsr_gets_equal_names(scale: int, tmp_path: Path, command_line: Run) -> None:
    root = tmp_path / f"DRealSR/x{scale}"
    # as some extract it, the test images lie one folder deeper
    folders = {"train": root / f"Train_x{scale}", "test": root / f"Test_x{scale}/Test_x{scale}"}
    for kind, name, end in (("train", "DSC_1286", "_3"), ("train", "sony_10", "_12"), ("test", "Canon_10", "")):
        image = photo(72, 48)
        write(image, folders[kind] / f"{kind}_HR/{name}_x{scale}{end}.png")
        small = image.resize((72 // scale, 48 // scale), Image.Resampling.BOX)
        write(small, folders[kind] / f"{kind}_LR/{name}_x1{end}.png")
    done = command_line("prepare", "drealsr", tmp_path / "DRealSR", "--scale", str(scale), "--workers", "1")
    assert done.returncode == 0, done.stderr
    out = tmp_path / f"data/DRealSR_x{scale}"
    for kind, names in (("train", ["DSC_1286_3.png", "sony_10_12.png"]), ("test", ["Canon_10.png"])):
        assert files_below(out / kind / "HR") == files_below(out / kind / "LR") == names
    assert (out / "test/LR/Canon_10.png").samefile(folders["test"] / "test_LR/Canon_10_x1.png")


def test_camerasr_is_of_equal_size_and_split_as_in_cria_cl(tmp_path: Path, command_line: Run) -> None:
    for camera in ("iPhoneX", "NikonD5500"):
        for number in (1, 20, 21, 100):
            image = photo(66 + number, 48)
            write(image, tmp_path / f"City100/City100_{camera}/{number:03d}H.PNG")
            small = image.resize((30, 20)).resize(image.size)
            write(small, tmp_path / f"City100/City100_{camera}/{number:03d}L.PNG")
    done = command_line("prepare", "camerasr", tmp_path, "--camera", "iPhoneX", "--lmdb", "--workers", "1")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "datasets/CameraSR_x1"
    for kind, names in (("train", ["iPhoneX_021", "iPhoneX_100"]), ("test", ["iPhoneX_001", "iPhoneX_020"])):
        assert files_below(out / kind / "HR") == files_below(out / kind / "LR") == [f"{name}.png" for name in names]
        assert (out / f"{kind}_LR.lmdb/data.mdb").is_file()
    for side, of_archive in (("HR", "H"), ("LR", "L")):
        original = tmp_path / f"City100/City100_iPhoneX/021{of_archive}.PNG"
        assert np.array_equal(pixels(out / f"train/{side}/iPhoneX_021.png"), pixels(original))


def test_pairs_of_equal_size_in_folders(tmp_path: Path) -> None:
    for folder in ("HR", "LR"):
        write(photo(60, 50), tmp_path / f"pairs/{folder}/a.png")
    write(photo(60, 50), tmp_path / "pairs/HR/b.png")
    write(photo(30, 25), tmp_path / "pairs/LR/b.png")
    (part,) = pairs.paired_parts(pairs.REALSR, tmp_path / "pairs", 1, SMALL)
    (problem,) = prepare([part], tmp_path / "set", "realsr").problems
    assert "b.png is 30 x 25; expected 60 x 50" in problem
    assert len(files_below(tmp_path / "set/train/LR")) == len(SMALL.boxes(50, 60))
    assert files_below(tmp_path / "set/train/HR") == files_below(tmp_path / "set/train/LR")


def test_ntire2020_has_made_pairs_to_train_on_and_its_own_to_test(tmp_path: Path, command_line: Run) -> None:
    archive = tmp_path / "track1"
    write(photo(96, 72), archive / "Corrupted-tr-x/000001.png")
    write(photo(96, 72, "coffee.png"), archive / "Corrupted-tr-y/0001.png")
    write(photo(96, 72, "rocket.jpg"), archive / "track1-valid-gt/0801.png")
    corrupted = write(photo(24, 18, "chelsea.png"), archive / "Corrupted-va-x/0801.png")
    done = command_line("prepare", "ntire2020", archive, "--size", "48", "--step", "24", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "train/LR: LR images at x4, made from HR" in done.stdout
    assert "test/LR: LR images at x4, the archive's own" in done.stdout
    out = tmp_path / "data/NTIRE2020_x4"
    origins = {name.rpartition("_s")[0] for name in files_below(out / "train/HR")}
    assert origins == {"Corrupted-tr-x_000001", "Corrupted-tr-y_0001"}
    target = bicubic(pixels(archive / "Corrupted-tr-y/0001.png"), 4)
    assert np.array_equal(pixels(out / "train/LR/Corrupted-tr-y_0001_s001.png"), target[:12, :12])
    assert (out / "test/LR/0801.png").samefile(corrupted)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("drealsr", "--scale", "1"), "--scale: DRealSR has x2, x3, x4, got 1"),
        (("realsr", "--camera", "Sony"), "--camera: expected one of RealSR's, Canon or Nikon, got Sony"),
        (("camerasr",), "Expected CameraSR's files (City100_iPhoneX or"),
        (("ntire2020",), "Expected NTIRE2020's files (Track 1's Corrupted-tr-x"),
        (("realsr", "--clean", "nowhere"), "such as DIV2K_train_HR, got nowhere with no such folder"),
        (("realsr", "--scale", "1", "--clean", "pairs/HR"), "--clean: expected a scale of at least 2, got 1"),
        (("realsr", "--sub-images", "--size", "50"), "--size: expected a multiple of 4"),
    ],
)
def test_pairs_that_cannot_be(arguments: tuple[str, ...], words: str, tmp_path: Path, command_line: Run) -> None:
    for folder in ("HR", "LR"):
        write(photo(40, 40), tmp_path / f"pairs/{folder}/a.png")
    command, *options = arguments
    done = command_line("prepare", command, "pairs", *options)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("DIV2K", ("DIV2K_train_HR in it", "data.vision.ee.ethz.ch/cvl/DIV2K")),
        ("Flickr2K", ("Flickr2K_HR in it", "NTIRE2017")),
        ("RealSR", ("Canon/Train/4", "csjcai/RealSR")),
    ],
)
def test_who_names_another_folder_is_told_what_to_download(name: str, words: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/DIV2K_train_HR.zip").touch()
    with pytest.raises(DataError) as caught:
        parts_of(tmp_path / "archive", name)
    assert all(word in str(caught.value) for word in (*words, "with DIV2K_train_HR.zip"))
    with pytest.raises(DataError, match="with no such folder"):
        parts_of(tmp_path / "nowhere", name)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scale", "1"), "--scale: expected scales of 2 to 8, got 1"),
        (("--size", "50"), "--size: expected a multiple of 4"),
        (("--scale", "3", "--scale", "4", "--step", "100"), "--step: expected a multiple of 12"),
        (("--step", "0"), "--step: expected a multiple of 4"),
        (("--thresh", "-4"), "--thresh: expected a multiple of 4"),
    ],
)
def test_settings_that_make_no_sense(
    arguments: tuple[str, ...], words: str, photos: Path, tmp_path: Path, command_line: Run
) -> None:
    assert words in command_line("prepare", "folder", photos, "set", *arguments).stderr
    assert not (tmp_path / "set").exists()


def test_out_must_not_be_where_images_are_read(photos: Path, tmp_path: Path, command_line: Run) -> None:
    for out in (photos, photos / "prepared"):
        done = command_line("prepare", "folder", photos, out)
        assert done.returncode == 1
        assert "Expected to write elsewhere than images are read" in done.stderr
    assert "Expected a folder of HR images at" in command_line("prepare", "folder", "nowhere", "set").stderr
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file there or below ends in one of"):
        prepare_folder(tmp_path / "empty", tmp_path / "set")


def test_a_data_set_at_the_other_name_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("datasets/DIV2K", "data/DIV2K", "data/Mine", "elsewhere/Mine"):
        Path(name).mkdir(parents=True)
    assert (
        link_for_other_host(Path("datasets/DIV2K"))
        == "data/DIV2K is there already and is another data set; it was left alone"
    )
    assert link_for_other_host(Path("elsewhere/Mine")) is None
    Path("datasets/Mine").symlink_to("nowhere")
    alone = "datasets/Mine is there already and is a link that leads nowhere; it was left alone"
    assert link_for_other_host(Path("data/Mine")) == alone
    Path("datasets/Mine").unlink()
    assert link_for_other_host(Path("data/Mine")) == "datasets/Mine is a link to it"
    assert Path("datasets/Mine").samefile("data/Mine")
