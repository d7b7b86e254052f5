"""Networks compared on data sets, as a library: what is reported, kept and noted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from contrastive_sr.data import write_degraded
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.evaluation import (
    DataSet,
    MetricNote,
    NamedNetwork,
    NoReference,
    bicubic,
    bicubic_lr,
    compare_networks,
    degraded_lr,
    given_lr,
)
from contrastive_sr.evaluation.comparison import CHECKING, check_networks
from contrastive_sr.evaluation.data_sets import images_of, paired_lr, read_pairs
from contrastive_sr.evaluation.report import ENDINGS, write_reports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 50 x 41."""
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (41, 50, 3)).astype(np.uint8)
        (tmp_path / "HR").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "HR" / f"{seed}.png")
    return tmp_path / "HR"


def networks() -> list[NamedNetwork]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4)).eval()
    return [NamedNetwork("bicubic", bicubic(4)), NamedNetwork("net", net, net)]


def test_scores_costs_parts_of_images_and_progress(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    sets = [DataSet("all", images_of(folder)), DataSet("one", images_of(folder)[:1])]

    def absent(sr: np.ndarray, hr: np.ndarray) -> float | None:
        return 1.0 if sr[0, 0, 0] < 0 else None

    evaluation = compare_networks(
        networks(),
        sets,
        bicubic_lr(4),
        4,
        metrics={"error": lambda sr, hr: float(np.abs(sr - hr.astype(float)).mean()), "absent": absent},
        shown=2,
        on_progress=lambda *call: told.append(call),
    )
    assert told == [(what, done, 4) for what in (CHECKING, "bicubic", "net") for done in range(5)]
    assert [(data, list(of_data)) for data, of_data in evaluation.scores.items()] == [
        ("all", ["bicubic", "net"]),
        ("one", ["bicubic", "net"]),
    ]
    results = evaluation.results()
    assert results["all"]["bicubic"]["parameters"] is None
    assert results["all"]["net"]["parameters"] == 48 * 27 + 48
    assert (results["all"]["net"]["images"], results["one"]["net"]["images"]) == (3, 1)
    assert results["one"]["net"]["error"] == evaluation.scores["all"]["net"][0].values["error"]
    assert [(part.dataset, part.name) for part in evaluation.shown] == [
        ("all", "0.png"),
        ("all", "2.png"),
        ("one", "0.png"),
    ]
    assert list(evaluation.shown[0].images) == ["bicubic", "net", "HR"]
    notes = evaluation.notes({"error": MetricNote("Mean error"), "absent": MetricNote("Rare", "others")})
    assert notes[3:5] == ["Mean error.", "Rare; others are left out: 4."]
    assert evaluation.notes({"other": MetricNote("not measured")}) == [*notes[:3], notes[5]]


def test_lr_from_files_is_what_the_preset_makes(folder: Path, tmp_path: Path) -> None:
    made = write_degraded(folder, tmp_path / "set", "dasr-anisotropic", 4, seed=3).folder
    files = images_of(folder)
    given = read_pairs(DataSet("a", files, paired_lr(folder, made / "LRx4", 4)), given_lr(), 4)
    source = degraded_lr("dasr-anisotropic", 4, seed=3)
    for pair, other in zip(given, read_pairs(DataSet("a", files), source, 4), strict=True):
        assert pair.name == other.name
        assert np.array_equal(pair.hr, other.hr)
        assert torch.equal((pair.lr * 255).round(), (other.lr * 255).round())


def test_photos_without_hr_images_beside_pairs(folder: Path) -> None:
    """From Python both can be measured at once: what compares with HR has no value for the photos."""
    files = images_of(folder)
    small = folder.parent / "small.png"
    with Image.open(files[0]) as image:
        image.crop((0, 0, 10, 8)).save(small)
    with Image.open(files[0]) as image:
        image.crop((0, 0, 40, 32)).save(folder.parent / "large.png")
    sets = [DataSet("pairs", [folder.parent / "large.png"], [small]), DataSet("photos", [], files)]
    metrics = {"error": lambda sr, hr: 1.0, "mean": NoReference(lambda sr: float(sr.mean()))}
    evaluation = compare_networks(networks(), sets, given_lr(), 4, metrics=metrics, shown=1)

    (pair,), (photo, *_) = (evaluation.scores[name]["bicubic"] for name in ("pairs", "photos"))
    assert (photo.name, photo.width, photo.height) == ("0.png", 200, 164)
    for name in ("psnr_y", "ssim_y", "error"):
        assert pair.values[name] is not None
        assert photo.values[name] is None
    assert photo.values["mean"] == pytest.approx(127, abs=5)
    assert list(pair.values) == list(photo.values)
    with_hr, without = evaluation.shown
    assert list(with_hr.images) == ["bicubic", "net", "HR"]
    assert list(without.images) == list(without.notes) == ["bicubic", "net"]
    left, top, right, bottom = without.box
    assert all(image.shape == (bottom - top, right - left, 3) for image in without.images.values())
    notes = evaluation.notes({})
    assert "HR is cropped" in notes[0]
    assert notes[2] == "Photos without HR image: 3; what compares with one is left out. Means over images."
    assert evaluation.notes({"error": MetricNote("Error", "others")})[4] == "Error; others are left out: 3."


class Failing(nn.Module):
    """A network that gives NaN for a bright image."""

    def forward(self, lr: Tensor) -> Tensor:
        return bicubic(4)(lr) / float(lr.max() < 0.9)


def test_a_network_that_fails_late_costs_nothing_that_was_measured(tmp_path: Path) -> None:
    for name, grey in (("dark", 90), ("light", 250)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.full((48, 52, 3), grey, np.uint8)).save(tmp_path / name / f"{number}.png")
    sets = [DataSet(name, images_of(tmp_path / name)) for name in ("dark", "light")]
    failing = Failing().eval()
    pair = [NamedNetwork("failing", failing, failing), NamedNetwork("bicubic", bicubic(4))]
    metrics = {"mean": NoReference(lambda sr: float(sr.mean()))}
    evaluation = compare_networks(pair, sets, bicubic_lr(4), 4, metrics=metrics, shown=1)
    (failed,) = evaluation.failed
    assert failed.startswith("failing on light: 0.png, 13 x 12 in LR: the network's output holds NaN")
    results = evaluation.results()
    assert results["dark"]["failing"]["psnr_y"] == results["dark"]["bicubic"]["psnr_y"]
    assert results["light"]["failing"]["psnr_y"] is results["light"]["failing"]["mean"] is None
    assert results["light"]["bicubic"]["mean"] == pytest.approx(250)
    assert [list(part.images) for part in evaluation.shown] == [["failing", "bicubic", "HR"], ["bicubic", "HR"]]
    notes = evaluation.notes({"mean": MetricNote("Mean", "others")})
    assert [note for note in notes if note.startswith(("Left out", "Mean", "Photos"))] == [
        "Mean.",
        f"Left out: {failed}",
    ]
    write_reports(
        {kind: tmp_path / f"r{ending[0]}" for kind, ending in ENDINGS.items()},
        "t",
        results,
        evaluation.scores,
        shown=evaluation.shown,
        notes=notes,
        warnings=[],
        about={},
    )
    assert "| light | failing | - | - | - | - |" in (tmp_path / "r.md").read_text()
    alone = compare_networks(pair[:1], sets, bicubic_lr(4), 4, shown=1)
    assert [(part.dataset, list(part.images)) for part in alone.shown] == [("dark", ["failing", "HR"])]
    with pytest.raises(NonFiniteError, match="failing on light"):
        compare_networks(pair[:1], sets[1:], bicubic_lr(4), 4)


def test_what_cannot_be_used_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected images in .*Did you mean .*HR\?"):
        images_of(folder.parent, ("GT", "HR"))
    with pytest.raises(DataError, match="expected a folder of images, got nowhere, which is not there"):
        images_of(Path("nowhere"))
    with pytest.raises(ConfigError, match=r"net: .*It is a network for x4"):
        check_networks(networks()[1:], 2, torch.device("cpu"))
    Image.new("RGB", (7, 18)).save(folder / "small.png")
    with pytest.raises(DataError, match=r"small\.png: x: expected sides of at least 8 pixels"):
        compare_networks(networks(), [DataSet("a", images_of(folder))], bicubic_lr(4), 4)


def test_a_metric_that_fails_costs_nothing_but_its_value(folder: Path) -> None:
    """Flat, small and oddly named images among others: an empty cell and a note, and all else is measured."""
    Image.new("RGB", (48, 48), "white").save(folder / "flat.png")
    Image.new("RGB", (20, 16)).save(folder / "small.png")
    (folder / "0.png").rename(folder / "a\udcff\x1b[2J|b.png")

    def fails_on_white(sr: np.ndarray) -> float:
        return 1.0 if sr.min() < 255 else float(np.linalg.svd(np.full((2, 2), np.nan))[1][0])

    metrics = {"strict": NoReference(fails_on_white), "nan": NoReference(lambda sr: float("nan"))}
    evaluation = compare_networks(
        networks()[:1], [DataSet("a", images_of(folder))], bicubic_lr(4), 4, metrics=metrics, shown=5
    )
    scores = {score.name: score for score in evaluation.scores["a"]["bicubic"]}
    assert [name for name, score in scores.items() if score.values["strict"] is None] == ["flat.png"]
    assert scores["flat.png"].values["psnr_y"] is not None
    small = scores["small.png"].values
    assert small["psnr_y"] is not None
    assert small["ssim_y"] is None
    assert all(score.values["nan"] is None for score in scores.values())
    assert evaluation.results()["a"]["bicubic"]["strict"] == 1.0

    notes = evaluation.notes({})
    assert not [note for note in notes if note.startswith("Photos")]
    assert "strict could not be measured on flat.png of a by bicubic (LinAlgError" in "\n".join(notes)
    assert "SSIM-Y could not be measured on small.png of a by bicubic (DataError: Expected images" in "\n".join(notes)
    assert next(note for note in notes if note.startswith("nan ")).endswith(
        "and 2 more; its means are over the other images."
    )
    files = {kind: folder.parent / f"r{ends[0]}" for kind, ends in ENDINGS.items()}
    write_reports(files, "t", evaluation.results(), evaluation.scores, shown=evaluation.shown, notes=notes)
    for path in files.values():
        text = path.read_text(encoding="utf-8")
        assert "\x1b" not in text
    assert r"a\udcff\x1b[2J|b.png" in files["csv"].read_text()
