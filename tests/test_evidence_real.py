"""`python -m benchmarks evidence-real` on tiny networks and images: what is trained, goes on, and is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cria_models import save_random_vgg
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.evidence import real_report
from benchmarks.evidence.images import TrainingPairs
from benchmarks.evidence.ledger import Row, read_rows
from benchmarks.evidence.real import SIZES, Size, real_study
from benchmarks.evidence.run import CSV, Evidence
from benchmarks.evidence.training import SRTraining, Study
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods import CriaCL

pytestmark = [pytest.mark.basicsr, pytest.mark.long]
CPU = torch.device("cpu")
PARTS = tuple(real_report.ARMS)
TINY = Size(
    crop=32,
    batch=dict.fromkeys(PARTS, 2),
    rrdb={"num_feat": 4, "num_block": 1, "num_grow_ch": 4},
    mpf={"channels": 4, "blocks": 1},
    plain_channels=5,
    embedding={"type": "HaarDiscriminator", "out_indices": [0]},
    warmup_steps=1,
    first=dict.fromkeys(PARTS, 2),
    seeds=dict.fromkeys(PARTS, 1),
    test_images=3,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of pairs; an LR pixel says where it is."""
    root = tmp_path_factory.mktemp("pairs")
    for part, count in (("train", 3), ("test", 4)):
        for number in range(count):
            rows, columns = np.mgrid[0:52, 0:50].astype(np.uint8)
            lr = np.stack((4 * rows, 4 * columns, np.full_like(rows, 60 * number)), -1)
            noise = np.random.default_rng(number).integers(0, 4, (208, 200, 3))
            hr = (lr.repeat(4, 0).repeat(4, 1) + noise).clip(0, 255).astype(np.uint8)
            for kind, image in (("LR", lr), ("HR", hr)):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(root / part / kind / f"a-{number}.png")
    return root / "train", root / "test"


@pytest.fixture(scope="module")
def study(folders: tuple[Path, Path]) -> Study:
    return real_study(*folders, "tiny", TINY, CPU)


@pytest.fixture(scope="module")
def done(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evidence")
    assert len(list(Evidence(study, out).units(PARTS, 30, last=2))) == 3 + sum(map(len, real_report.ARMS.values()))
    return out


def test_lr_and_hr_crops_show_one_place(folders: tuple[Path, Path]) -> None:
    pairs = TrainingPairs(folders[0], 32, CPU)
    batch = pairs.crops(8, seed=1, step=5)
    assert batch["lr"].shape == (8, 3, 8, 8)
    assert batch["hr"].shape == (8, 3, 32, 32)
    shrunk = batch["hr"].unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5))
    assert (shrunk - batch["lr"]).abs().max() * 255 < 4
    again = pairs.crops(8, seed=1, step=5)
    assert torch.equal(batch["lr"], again["lr"])
    assert not torch.equal(batch["lr"], pairs.crops(8, seed=1, step=6)["lr"])
    with pytest.raises(DataError, match="smaller than the patches"):
        TrainingPairs(folders[0], 256, CPU)


def test_arms_of_a_part_see_the_same_and_start_alike(study: Study) -> None:
    for part in study.parts.values():
        trainings = [part.build(arm, 3) for arm in part.arms]
        batches = [training.batches(7) for training in trainings]
        assert all(torch.equal(batch["hr"], batches[0]["hr"]) for batch in batches)
    plain, full = (study.parts["criteria"].build(arm, 0).net.state_dict() for arm in ("plain", "full"))
    assert torch.equal(plain["body.0.rdb1.conv1.weight"], full["trunk.body.0.rdb1.conv1.weight"])


@pytest.mark.parametrize(("part", "arm"), [("criteria", "full"), ("network", "baseline"), ("regularization", "7")])
def test_a_training_goes_on_bit_for_bit(part: str, arm: str, study: Study, tmp_path: Path) -> None:
    straight, begun, resumed = (study.parts[part].build(arm, 0) for _ in range(3))
    for _ in range(4):
        straight.advance()
    for _ in range(2):
        begun.advance()
    torch.save(begun.state(), tmp_path / "state.pth")
    resumed.load(torch.load(tmp_path / "state.pth", weights_only=True))
    for _ in range(2):
        resumed.advance()
    torch.testing.assert_close(resumed.state(), straight.state(), rtol=0, atol=0)


def test_what_the_arms_add_to_l1(study: Study) -> None:
    weights = {}
    for part, arm in (("criteria", name) for name in real_report.CRITERIA_ARMS):
        training = study.parts[part].build(arm, 0)
        assert isinstance(training, SRTraining)
        (method,) = training.methods
        weights[arm] = sorted(method.weights)
    assert weights == {
        "plain": [],
        "sum": ["adversarial"],
        "align": ["adversarial", "align"],
        "uniformity": ["adversarial", "uniformity"],
        "both": ["adversarial", "align", "uniformity"],
        "branches": ["adversarial"],
        "full": ["adversarial", "align", "uniformity"],
    }


def test_with_vgg_weights_table_v_has_the_paper_s_criteria(folders: tuple[Path, Path], tmp_path: Path) -> None:
    file = str(save_random_vgg(tmp_path / "vgg19.pth"))
    study = real_study(*folders, "tiny", TINY, CPU, file)
    training = study.parts["criteria"].build("full", 0)
    assert isinstance(training, SRTraining)
    (method,) = training.methods
    assert isinstance(method, CriaCL)
    assert method.roles["align"] == ("pixel_l1", "ssim", "vgg_relu1_2")
    assert sorted(method.weights) == ["adversarial", "align", "uniformity", "vgg_conv5_4"]
    training.advance()
    assert "perceptual loss of share 1" in study.parts["criteria"].setting
    Evidence(study, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"was begun with another vgg: .*vgg19.pth, now None"):
        Evidence(real_study(*folders, "tiny", TINY, CPU), tmp_path / "out")
    options = {"--out": tmp_path / "out", "--train": folders[0], "--test": folders[1], "--vgg": "nowhere.pth"}
    called = CliRunner().invoke(app, ["evidence-real", *(str(word) for option in options.items() for word in option)])
    assert called.exit_code == 1
    assert "VGGFeatures(weights): expected an existing file, got nowhere.pth" in called.output


def test_every_figure_of_every_image(done: Path) -> None:
    rows = read_rows(done / CSV)
    figures = {f"{metric}/a-{number}" for metric in real_report.METRICS for number in (0, 1, 2)}
    for part, arms in real_report.ARMS.items():
        for arm, step in (("bicubic", 0), *((arm, 2) for arm in arms)):
            here = [row for row in rows if (row.part, row.arm, row.step) == (part, arm, step)]
            assert {row.figure for row in here} == figures
            assert all(np.isfinite(row.value) for row in here)


def test_the_report_needs_the_csv_alone_and_pictures_the_crops(done: Path, tmp_path: Path) -> None:
    (tmp_path / CSV).write_bytes((done / CSV).read_bytes())
    called = CliRunner().invoke(app, ["evidence-real", "--out", str(tmp_path), "--report"])
    assert called.exit_code == 0, called.output
    assert "26.21, +1.39" in called.output  # the paper's whole model
    assert "3 training pairs, 3 test pairs" in called.output
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CSV, *(f"{part}.png" for part in PARTS)])
    written = real_report.save_plots(read_rows(done / CSV), done)
    assert {path.name for path in written} == {f"{part}{end}.png" for part in PARTS for end in ("", "_crops")}
    with Image.open(done / "network_crops.png") as picture:
        assert picture.width > picture.height > 300  # six columns, three rows


def _rows(gains: Sequence[float], arm: str = "7") -> list[Row]:
    rows = []
    for seed, gain in enumerate(gains):
        for name in real_report.REGULARIZATION_ARMS:
            for number in range(20):
                value = 25 + number + 0.2 * seed + (name == arm) * (gain + 0.01 * (number % 3))
                rows += [
                    Row("regularization", name, seed, 100, 1.0, f"{metric}/{number}", value, "net")
                    for metric in real_report.METRICS
                ]
    return rows


def _printed(rows: Sequence[Row]) -> str:
    console = Console(width=250, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for text in real_report.tables(rows):
        console.print(text, soft_wrap=isinstance(text, str))
    return console.export_text()


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ((0.1, 0.12, 0.08), "+0.11, p 8e-05, significant"),
        ((0.1, -0.12, 0.08), "n.s."),  # of two signs
        ((0.1, 0.12), "n.s."),  # two seeds
        ((0.0, 0.0, 0.0), "significant"),  # 0.01 on two of three images, always
    ],
)
def test_differences_are_taken_image_by_image_and_seed_by_seed(gains: tuple[float, ...], words: str) -> None:
    line = next(line for line in _printed(_rows(gains)).splitlines() if "(paper)" in line)
    assert words in line
    other = next(line for line in _printed(_rows(gains)).splitlines() if line.startswith("│ 3:"))
    assert "+0.00, p 1, n.s." in other


def test_bad_folders_are_explained(folders: tuple[Path, Path], tmp_path: Path) -> None:
    called = CliRunner().invoke(app, ["evidence-real", "--out", str(tmp_path / "out"), "--train", str(folders[0])])
    assert called.exit_code == 1
    assert "--train DIR and --test DIR" in called.output
    with pytest.raises(ConfigError, match="other folders than those of --train"):
        real_study(folders[0], folders[0], "tiny", TINY, CPU)
    (tmp_path / "HR").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "HR/1.png")
    with pytest.raises(DataError, match=r"Expected a folder of images at .*LR"):
        real_study(folders[0], tmp_path, "tiny", TINY, CPU)
    Evidence(real_study(*folders, "tiny", TINY, CPU), tmp_path / "a")
    other = real_study(*folders, "tiny", replace(TINY, crop=40), CPU)
    with pytest.raises(ConfigError, match="was begun with another crop: 32, now 40"):
        Evidence(other, tmp_path / "a")


def test_the_sizes_build() -> None:
    assert {name: size.crop % 4 for name, size in SIZES.items()} == {"small": 0, "large": 0}
