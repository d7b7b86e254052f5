"""`python -m benchmarks evidence-blind` on tiny networks and images: what is trained, goes on, and is reported."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.evidence import blind_report, report
from benchmarks.evidence.blind import ARMS, REFERENCES, WIDTHS, Size, blind_study
from benchmarks.evidence.command import _shown
from benchmarks.evidence.images import TestImages, TrainingImages
from benchmarks.evidence.ledger import Row, add_rows, read_rows
from benchmarks.evidence.run import CSV, Evidence, Unit, next_unit
from benchmarks.evidence.training import Bicubic, Study
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
PARTS = tuple(ARMS)
TINY = Size(
    crop=dict.fromkeys(PARTS, 24),
    batch=dict.fromkeys(PARTS, 2),
    queue=4,
    crl={"channels": 4, "encoder_blocks": 1, "decoder_blocks": 1},
    dasr={"channels": 4, "groups": 1, "blocks": 1},
    warmup_steps=1,
    refinement={"warmup_steps": 1, "positions": 4, "dim": 8},
    first=dict.fromkeys(PARTS, 1),
    seeds={"encoder": 1, "crl": 2, "dasr": 1},
    test_images=3,
    encoder_test=24,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders to train and to test on: five images, one of them too small; four images, one of them grey."""
    root = tmp_path_factory.mktemp("images")
    for name, count in (("train", 5), ("test", 4)):
        (root / name).mkdir()
        for number in range(count):
            size = (20, 40) if (name, number) == ("train", 4) else (32, 29 + number)
            pixels = np.random.default_rng(number).integers(0, 256, (*size, 3)).astype(np.uint8)
            image = Image.fromarray(pixels)
            (image.convert("L") if (name, number) == ("test", 0) else image).save(root / name / f"{number}.png")
    return root / "train", root / "test"


@pytest.fixture(scope="module")
def images(folders: tuple[Path, Path]) -> TrainingImages:
    return TrainingImages([folders[0]], 24, CPU)


@pytest.fixture(scope="module")
def study(folders: tuple[Path, Path]) -> Study:
    return _study(folders)


@pytest.fixture(scope="module")
def done(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of every arm to step 2, in two calls."""
    out = tmp_path_factory.mktemp("evidence")
    first = _evidence(folders, out).units(PARTS, 10, last=2)
    begun = [next(first)[0] for _ in range(4)]
    first.close()
    rest = [unit for unit, _ in _evidence(folders, out).units(PARTS, 10, last=2)]
    assert not set(begun) & set(rest)
    assert len(begun + rest) == len(set(begun + rest))
    return out


def _study(folders: tuple[Path, Path], size: Size = TINY) -> Study:
    return blind_study([folders[0]], [folders[1]], "tiny", size, CPU)


def _evidence(folders: tuple[Path, Path], out: Path, size: Size = TINY) -> Evidence:
    return Evidence(_study(folders, size), out)


def _printed(rows: Sequence[Row]) -> str:
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    for text in blind_report.tables(rows):
        console.print(text, soft_wrap=isinstance(text, str))
    return console.export_text()


# ------------------------------------------------------------------------------------------------------- images


def test_crops_depend_on_seed_and_step_alone(images: TrainingImages) -> None:
    assert (len(images.images), images.left_out) == (4, 1)
    crops = images.crops(4, 24, seed=3, step=7)
    again = images.crops(4, 24, seed=3, step=7)
    assert all(torch.equal(a, b) for a, b in zip(crops, again, strict=True))
    assert not torch.equal(crops[0], images.crops(4, 24, seed=3, step=8)[0])
    assert not torch.equal(crops[0], images.crops(4, 24, seed=4, step=7)[0])
    assert crops[0].shape == (4, 3, 24, 24)
    assert 0 <= crops[0].min() < crops[0].max() <= 1


def test_two_crops_of_an_image_and_each_image_once(tmp_path: Path) -> None:
    for level in range(6):
        Image.new("RGB", (30, 30), (40 * level, 0, 0)).save(tmp_path / f"{level}.png")
    first, second = TrainingImages([tmp_path], 24, CPU).crops(6, 24, seed=0, step=0)
    assert torch.equal(first, second)  # of one colour each, so that any two crops are equal
    assert len({round(float(crop[0, 0, 0]), 3) for crop in first}) == 6


def test_images_that_are_all_too_small(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"at least 64 x 64 pixels in .*train, got 5 smaller"):
        TrainingImages([folders[0]], 64, CPU)


def test_test_images_are_degraded_alike_in_every_run(folders: tuple[Path, Path]) -> None:
    first, second = (TestImages(folders[1], 3, CPU) for _ in range(2))
    assert [file.name for file in first.files] == ["0.png", "1.png", "2.png"]
    assert torch.equal(first.hr[0][:, 0], first.hr[0][:, 2])  # the grey one
    assert all(length % 4 == 0 for hr in first.hr for length in hr.shape[-2:])
    pairs = zip(first.degraded("crl-spatial-x4"), second.degraded("crl-spatial-x4"), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------------------------------------------- trainings


@pytest.mark.parametrize(
    ("part", "arm"),
    [*(("encoder", arm) for arm in ARMS["encoder"]), ("crl", "a"), ("crl", "f"), ("dasr", "same_image")],
)
def test_a_training_goes_on_bit_for_bit(part: str, arm: str, study: Study, tmp_path: Path) -> None:
    straight = study.parts[part].build(arm, 0)
    for _ in range(3):
        straight.advance()
    begun = study.parts[part].build(arm, 0)
    before = {name: value.clone() for name, value in begun.net.state_dict().items()}
    begun.advance()
    torch.save(begun.state(), tmp_path / "state.pth")
    resumed = study.parts[part].build(arm, 0)
    resumed.load(torch.load(tmp_path / "state.pth", weights_only=True))
    for _ in range(2):
        resumed.advance()
    expected, found = straight.state(), resumed.state()
    assert found["step"] == 3
    torch.testing.assert_close(found["params"], expected["params"], rtol=0, atol=0)
    torch.testing.assert_close(found["parts"], expected["parts"], rtol=0, atol=0)
    assert any(not torch.equal(value, before[name]) for name, value in found["params"].items())


@pytest.mark.parametrize("part", PARTS)
def test_arms_see_the_same_images_under_the_same_degradations(part: str, study: Study) -> None:
    """Also those that had steps of contrast alone before."""
    seen = []
    for arm in ARMS[part]:
        training = study.parts[part].build(arm, 1)
        for _ in range(training.warmup):
            training.advance()
        batches: list[dict[str, torch.Tensor]] = []
        training.train_on = batches.append  # type: ignore[method-assign]
        training.advance()
        training.advance()
        seen.append(batches)
    for batches in seen:
        for batch, first in zip(batches, seen[0], strict=True):
            assert torch.equal(batch["lr"], first["lr"])
            assert torch.equal(batch["hr"], first["hr"])
    assert not torch.equal(seen[0][0]["hr"], seen[0][1]["hr"])


def test_arms_start_alike_and_end_apart(study: Study) -> None:
    for part, arms in ARMS.items():
        trainings = {arm: study.parts[part].build(arm, 0) for arm in arms}
        states = {arm: training.net.state_dict() for arm, training in trainings.items()}
        of_encoder = {
            arm: next(
                value for name, value in state.items() if name.endswith(("body.0.weight", "first.weight"))
            ).clone()
            for arm, state in states.items()
        }
        first = next(iter(of_encoder.values()))
        assert all(torch.equal(first, value) for value in of_encoder.values())
        for training in trainings.values():
            for _ in range(training.warmup + 3):
                training.advance()
        after = [next(iter(training.net.parameters())).detach() for training in trainings.values()]
        assert all(not torch.equal(a, b) for i, a in enumerate(after) for b in after[:i])


@pytest.mark.basicsr
def test_the_reference_is_matlabs_bicubic() -> None:
    """Apart from the border, which torch treats in another way."""
    from contrastive_sr.hosts.basicsr.host import import_basicsr

    imresize = import_basicsr("basicsr.utils.matlab_functions").imresize

    lr = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(0))
    expected = imresize(lr, 4)[:, 12:-12, 12:-12]
    torch.testing.assert_close(Bicubic()(lr[None])[0, :, 12:-12, 12:-12], expected, rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------------------------- units


def test_all_arms_get_to_the_same_steps_and_nothing_is_done_twice(done: Path) -> None:
    with (done / CSV).open() as file:
        lines = list(csv.DictReader(file))
    keys = [(line["part"], line["arm"], line["seed"], line["step"], line["figure"]) for line in lines]
    assert len(keys) == len(set(keys))
    runs = {(line["part"], line["arm"], line["seed"]): set() for line in lines}
    for line in lines:
        runs[line["part"], line["arm"], line["seed"]].add(int(line["step"]))
    expected = {(part, arm, str(seed)) for part in PARTS for arm in ARMS[part] for seed in range(TINY.seeds[part])}
    references = {(part, arm, "0") for part, arm in REFERENCES.items()}
    assert set(runs) == expected | references
    assert all(steps == ({0} if run in references else {1, 2}) for run, steps in runs.items())
    of_dasr = {figure for part, _, _, _, figure in keys if part == "dasr"}
    assert of_dasr == {f"psnr/test/{width}" for width in WIDTHS}
    assert all(np.isfinite(float(line["value"])) for line in lines)
    assert all("4 training images, tested on 3 of test; torch" in row.setting for row in read_rows(done / CSV))


def test_the_steps_of_contrast_alone_come_on_top(done: Path) -> None:
    steps = {arm: torch.load(done / f"runs/dasr-{arm}-0.pth", weights_only=True)["step"] for arm in ARMS["dasr"]}
    assert steps == {"without": 2, "same_image": 3, "same_degradation": 3}


def test_the_states_are_checkpoints_for_the_plot(done: Path) -> None:
    for arm in ("same_image", "sr_loss", "supervised"):
        encoder = DegradationEncoder(weights=done / f"runs/encoder-{arm}-0.pth").eval()
        assert encoder(torch.rand(1, 3, 8, 8)).shape == (1, 256)


def test_when_the_time_is_up_the_state_is_kept(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evidence = _evidence(folders, tmp_path)
    assert not list(evidence.units(PARTS, minutes=0))
    unit = Unit("crl", "a", 0, 5)
    assert evidence._train(unit, deadline=0.0, report=lambda _: None) is None
    assert torch.load(tmp_path / "runs/crl-a-0.pth", weights_only=True)["step"] == 0
    assert not (tmp_path / CSV).exists()


def test_turns_go_to_the_part_with_the_least_time_and_the_arm_furthest_behind(study: Study) -> None:
    def row(part: str, arm: str, seed: int, step: int, seconds: float) -> Row:
        return Row(part, arm, seed, step, seconds, "figure", 0.0, "")

    assert next_unit([], study.parts) == Unit("encoder", "random", 0, 0)
    assert next_unit([], {"crl": study.parts["crl"]}) == Unit("crl", "bicubic", 0, 0)
    references = [row(part, arm, 0, 0, 0.0) for part, arm in REFERENCES.items()]
    rows = [*references, row("encoder", "same_image", 0, 1, 9.0)]
    assert next_unit(rows, study.parts) == Unit("crl", "a", 0, 1)
    assert next_unit(rows, {"encoder": study.parts["encoder"]}) == Unit("encoder", "same_degradation", 0, 1)
    rows = [*references, *(row("crl", arm, 0, 1, 1.0) for arm in "abcdef")]
    assert next_unit(rows, {"crl": study.parts["crl"]}) == Unit("crl", "a", 1, 1)  # the next seed before the next step
    rows += [row("crl", arm, 1, 1, 1.0) for arm in "abcdef"]
    assert next_unit(rows, {"crl": study.parts["crl"]}) == Unit("crl", "a", 0, 2)
    assert next_unit(rows, {"crl": study.parts["crl"]}, last=1) is None


def test_a_folder_is_not_gone_on_with_in_another_way(folders: tuple[Path, Path], done: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match="was begun with another queue: 4, now 8"):
        _evidence(folders, done, replace(TINY, queue=8))
    with pytest.raises(ConfigError, match="other folders than those of --train"):
        blind_study([folders[0]], [folders[0]], "tiny", TINY, CPU)
    with pytest.raises(ConfigError, match="folders of different names"):
        blind_study([folders[0]], [folders[1], folders[1]], "tiny", TINY, CPU)
    assert json.loads((done / "settings.json").read_text())["queue"] == 4


# ------------------------------------------------------------------------------------------------------- report


def test_the_report_needs_the_csv_alone(done: Path, tmp_path: Path) -> None:
    (tmp_path / CSV).write_bytes((done / CSV).read_bytes())
    called = CliRunner().invoke(app, ["evidence-blind", "--out", str(tmp_path), "--report"])
    assert called.exit_code == 0, called.output
    for name in blind_report.NAMES.values():
        assert name in called.output
    assert "at step 2, mean ± standard deviation over 2 seeds" in called.output
    assert "DASR (channels 4, groups 1, blocks 1)" in called.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crl.png", "dasr.png", "encoder.png", CSV]
    for name in ("crl", "dasr", "encoder"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 500


def test_the_command_explains_what_it_cannot_do(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def refused(*arguments: str | Path) -> str:
        called = CliRunner().invoke(app, ["evidence-blind", "--out", str(tmp_path / "out"), *map(str, arguments)])
        assert called.exit_code == 1
        return called.output

    assert "--train DIR and --test DIR" in refused("--train", folders[0])
    assert "Expected a folder of images" in refused("--train", tmp_path / "nothing", "--test", folders[1])
    called = CliRunner().invoke(app, ["evidence-blind", "--out", str(tmp_path), "--report"])
    assert "Nothing has been measured" in called.output
    (tmp_path / CSV).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is not a CSV of this run"):
        read_rows(tmp_path / CSV)


def test_rows_survive_and_are_replaced(tmp_path: Path) -> None:
    words = 'words, with a comma and a "quote"'
    row = Row("crl", "a", 0, 10, 1.5, "psnr/Set14", 24.125, words)
    other = Row("crl", "b", 0, 10, 1.5, "psnr/Set14", 24.5, words)
    third = Row("dasr", "b", 0, 10, 1.5, "psnr/Set14", 24.5, "others")
    add_rows(tmp_path / CSV, [row])
    add_rows(tmp_path / CSV, [other, third, Row(*(*other.key[:4], 2.5, "psnr/Set14", 25.0, words))])
    assert read_rows(tmp_path / CSV) == [row, Row("crl", "b", 0, 10, 2.5, "psnr/Set14", 25.0, words), third]
    assert (tmp_path / CSV).read_text().count("comma") == 1  # the line below says nothing


def _crl_rows(step: int, seeds: int, gain: float, arms: str = "abcdef") -> list[Row]:
    return [
        Row("crl", arm, seed, step, 1.0, "psnr/Set14", 24 + 0.3 * seed + (gain + 0.01 * seed) * (arm == "f"), "net")
        for arm in arms
        for seed in range(seeds)
    ]


def test_arms_are_compared_where_all_of_them_are() -> None:
    rows = _crl_rows(250, 3, 0.1) + _crl_rows(500, 3, 0.2) + _crl_rows(1000, 2, 0.3) + _crl_rows(2000, 3, 0.4, "abcde")
    assert report.fair_step(rows, "crl", "abcdef") == (500, [0, 1, 2])
    assert report.fair_step(_crl_rows(250, 3, 0.1, "ab"), "crl", "abcdef")[1] == []
    assert "not all six models have been measured" in _printed(_crl_rows(250, 3, 0.1, "ab"))


@pytest.mark.parametrize(("gain", "words"), [(0.2, "a gain"), (-0.2, "a loss"), (-0.01, "n.s.")])
def test_differences_are_taken_seed_by_seed(gain: float, words: str) -> None:
    """Seeds lie 0.3 dB apart, gains 0.01: paired, they show."""
    text = _printed(_crl_rows(250, 3, gain))
    assert f"{gain + 0.01:+.3f} ± 0.010, {words}" in text
    assert "24.30 ± 0.30" in text
    assert "24.31, +0.69" in text  # the paper's f


def test_three_seeds_say_little() -> None:
    """Three values of mean -0.04 and standard error 0.01: t is 4, and 4.3 is needed."""
    assert report.verdict([-0.02, -0.05, -0.05]) == "-0.040 ± 0.017, n.s."
    assert report.verdict([-0.03, -0.045, -0.045]).endswith("a loss")


def test_two_seeds_say_nothing() -> None:
    assert report.verdict([0.5, 0.6]) == "+0.550, too few seeds to say"


def test_many_figures_are_shown_by_their_means() -> None:
    few = {"psnr/Set14": 25.0, "psnr/B100": 26.0}
    assert _shown(few) == "psnr/Set14 25.000, psnr/B100 26.000"
    many = {f"{kind}/{number}": start + number for kind, start in (("psnr", 20), ("niqe", 4)) for number in range(7)}
    assert _shown(many) == "psnr 23.000, niqe 7.000"
