"""The small data set of the demo: its pairs, and what it does with a folder that is there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrastive_sr.data.demo import TRAIN_PHOTOS, VAL_PHOTOS, photo_path, prepare_demo_data
from contrastive_sr.errors import ConfigError, DataError


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_pairs_fit(demo_data: Path) -> None:
    for part in ("train", "val"):
        names = sorted(path.name for path in (demo_data / part / "HR").iterdir())
        assert names == sorted(path.name for path in (demo_data / part / "LRx4").iterdir())
        for name in names:
            with Image.open(demo_data / part / "HR" / name) as hr, Image.open(demo_data / part / "LRx4" / name) as lr:
                assert hr.mode == lr.mode == "RGB"
                assert hr.size == (4 * lr.width, 4 * lr.height)
                assert hr.width % 16 == hr.height % 16 == 0
                assert "icc_profile" not in hr.info
    assert len(names) == len(VAL_PHOTOS)


def test_lr_is_hr_made_smaller(demo_data: Path) -> None:
    """Whichever tile: its LR is, but for its edge, the bicubic reduction of its own HR."""
    for hr_path in sorted((demo_data / "train" / "HR").iterdir())[::9]:
        with Image.open(hr_path) as hr, Image.open(demo_data / "train" / "LRx4" / hr_path.name) as lr:
            small = np.asarray(hr.resize(lr.size, Image.Resampling.BICUBIC), dtype=int)
            assert np.abs(small - np.asarray(lr, dtype=int))[3:-3, 3:-3].max() <= 1


@pytest.mark.parametrize("scale", [2, 3])
def test_pairs_at_other_scales(scale: int, tmp_path: Path) -> None:
    data = prepare_demo_data(tmp_path / "demo", scale=scale)
    assert prepare_demo_data(tmp_path / "demo", scale=scale).reused
    for part, kinds in (("train", ("",)), ("val", ("", "_blurred", "_spatial"))):
        for hr_path in (data.folder / part / "HR").iterdir():
            for kind in kinds:
                lr_path = data.folder / part / f"LRx{scale}{kind}" / hr_path.name
                with Image.open(hr_path) as hr, Image.open(lr_path) as lr:
                    assert hr.size == (scale * lr.width, scale * lr.height)
    before = _digests(data.folder)
    with pytest.raises(DataError, match=rf"at x4, got .*, which has it at x{scale}\. Choose another folder"):
        prepare_demo_data(data.folder)
    assert _digests(data.folder) == before
    with pytest.raises(ConfigError, match="scale: expected 2, 3 or 4, got 8"):
        prepare_demo_data(tmp_path / "other", scale=8)


def test_training_covers_its_photographs_and_no_held_out_one(demo_data: Path) -> None:
    assert not {Path(name).stem for name in TRAIN_PHOTOS} & {Path(name).stem for name in VAL_PHOTOS}
    assert not any(name.startswith("motorcycle") for name in TRAIN_PHOTOS)  # both views show one scene
    seen = {name: np.zeros(Image.open(photo_path(name)).size[::-1], dtype=bool) for name in TRAIN_PHOTOS}
    photos = {Path(name).stem: (name, np.asarray(Image.open(photo_path(name)).convert("RGB"))) for name in TRAIN_PHOTOS}
    for path in (demo_data / "train" / "HR").iterdir():
        stem, top, left = path.stem.rsplit("_", 2)
        name, photo = photos[stem]
        rows, columns = slice(int(top), int(top) + 128), slice(int(left), int(left) + 128)
        assert np.array_equal(np.asarray(Image.open(path)), photo[rows, columns])
        seen[name][rows, columns] = True
    for covered in seen.values():
        height, width = (size // 16 * 16 for size in covered.shape)
        assert covered[: height - 3, : width - 3].all()


def test_preparing_again_reuses_and_elsewhere_gives_the_same_files(demo_data: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo_data.rglob("*")}
    assert prepare_demo_data(demo_data).reused
    assert {path: path.stat().st_mtime_ns for path in demo_data.rglob("*")} == before
    other = prepare_demo_data(tmp_path / "other")
    assert not other.reused
    assert _digests(other.folder) == _digests(demo_data)


def test_a_damaged_data_set_is_written_again(tmp_path: Path) -> None:
    folder = prepare_demo_data(tmp_path / "demo").folder
    whole = _digests(folder)
    (folder / "val/HR/chelsea.png").write_bytes(b"cut off")
    (folder / "train/LRx4/coffee_0000_0000.png").unlink()
    assert not prepare_demo_data(folder).reused
    assert _digests(folder) == whole


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_text("mine")
    with pytest.raises(DataError, match=r"other files in it, such as photo\.png"):
        prepare_demo_data(tmp_path / "mine")
    assert _digests(tmp_path / "mine").keys() == {"photo.png"}

    folder = prepare_demo_data(tmp_path / "demo").folder
    (folder / "val/HR/chelsea.png").unlink()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        prepare_demo_data(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_only_what_is_its_own_is_removed(tmp_path: Path) -> None:
    (tmp_path / "demo.partial").mkdir()
    (tmp_path / "demo.partial/photo.png").write_text("mine")
    folder = prepare_demo_data(tmp_path / "demo").folder
    assert (tmp_path / "demo.partial/photo.png").read_text() == "mine"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("photo.png", "train/HR/photo.png", "../demo.partial/photo.png"):
        (folder / name).write_text("mine")
        (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {**manifest["files"], name: "0"}}))
        (folder / "val/HR/chelsea.png").unlink(missing_ok=True)
        if ".." not in name:
            with pytest.raises(DataError, match=r"other files in it, such as .*photo\.png"):
                prepare_demo_data(folder)
            (folder / name).unlink()
        else:
            assert not prepare_demo_data(folder).reused
    assert (tmp_path / "demo.partial/photo.png").read_text() == "mine"


def test_two_at_once_end_with_one_whole_data_set(tmp_path: Path) -> None:
    def second(name: str, done: int, total: int) -> None:
        with pytest.raises(DataError, match="Another `contrastive-sr prepare` is at work"):
            prepare_demo_data(tmp_path / "demo")

    assert prepare_demo_data(tmp_path / "demo", second).train > 0
    assert prepare_demo_data(tmp_path / "demo").reused
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_the_manifest_names_sources(demo_data: Path) -> None:
    manifest = json.loads((demo_data / "manifest.json").read_text())
    assert set(manifest["photographs"]) == {*TRAIN_PHOTOS, *VAL_PHOTOS}
    assert {name for name, entry in manifest["photographs"].items() if entry["part"] == "val"} == set(VAL_PHOTOS)
