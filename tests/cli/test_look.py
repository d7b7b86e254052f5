"""`contrastive-sr compare` and `samples`, on what the hosts' own trainers leave behind: first part, then resumed."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import run_python
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from contrastive_sr.cli.app import app
from contrastive_sr.cli.compare import compare_runs
from contrastive_sr.cli.samples import draw_samples
from contrastive_sr.data.demo import photo_path
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.curves import best
from contrastive_sr.hosts.logs import RunLog, read_run
from contrastive_sr.methods import METHODS, Method
from tests.hosts import mmagic_helpers
from tests.hosts.basicsr_options import PROJECT, write_options

CAT = photo_path("chelsea.png")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def train(config: Path, *arguments: str) -> None:
    done = run_python(["-m", "contrastive_sr.cli", "train", config.name, *arguments], config.parent, ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def basicsr(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of 7 steps, logged every 2 and validated every 3, that goes on from step 4."""
    folder = tmp_path_factory.mktemp("basicsr")
    changes: dict[str, Any] = {
        "train:total_iter": 7,
        "val:val_freq": 3,
        "val:save_img": False,
        "logger:print_freq": 2,
        "logger:save_checkpoint_freq": 4,
    }
    options = write_options(folder, "demo_pcl_edsr", demo_data, changes)
    train(options)
    run = folder / "experiments" / "demo_pcl_edsr"
    for file in (run / "training_states").glob("7.*"):
        file.unlink()
    write_options(folder, "demo_pcl_edsr", demo_data, {**changes, "train:total_iter": 10})
    train(options, "--auto_resume")
    return run


@pytest.fixture(scope="module")
def mmagic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of 4 steps that goes on to 6; its second part logs validation under the epoch, MMEngine's default."""
    folder = tmp_path_factory.mktemp("mmagic")
    mmagic_helpers.write_demo(folder)
    config = folder / "pcl.py"
    for steps, by_epoch, arguments in ((4, False, []), (6, True, ["--resume"])):
        # the second part logs step 5 and validates at step 6
        more = f"default_hooks['logger'].update(log_metric_by_epoch={by_epoch}, interval={5 if by_epoch else 1})\n"
        mmagic_helpers.write_config(config, "demo_pcl_edsr", steps=steps, save=4, val=2, more=more)
        train(config, *arguments)
    return folder / "work_dirs" / "pcl"


def steps(run: RunLog, key: str) -> list[int]:
    return [step for step, _ in {**run.training, **run.validation}[key]]


# -------------------------------------------------------------------------------------------------------- logs


@pytest.mark.basicsr
def test_log_of_basicsr_says_what_its_events_say(basicsr: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list(basicsr.glob("train_*.log"))) == 2
    run = read_run(basicsr)
    assert (run.host, run.step, run.total) == ("BasicSR", 10, 10)
    assert steps(run, "loss_pix") == [2, 4, 6, 8, 10]
    assert steps(run, "PSNR") == [3, 6, 9, 10]  # the text does not say at which step
    assert len(run.times) == 5
    assert run.seconds_per_step is not None
    assert 0 <= run.seconds < 600
    events = EventAccumulator(str(basicsr.parents[1] / "tb_logger" / basicsr.name))
    events.Reload()
    for key, tag in (
        ("loss_pix", "losses/l_pix"),
        ("pcl_contrastive_raw", "pcl_contrastive_raw"),
        ("PSNR", "metrics/held-out/psnr"),
    ):
        logged = {min(event.step, 10): event.value for event in events.Scalars(tag)}  # the last of equal steps
        read = dict({**run.training, **run.validation}[key])
        assert read == pytest.approx({step: logged[step] for step in read}, rel=1e-4), key


@pytest.mark.mmagic
def test_log_of_mmagic_joins_its_dated_folders(mmagic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = sorted(path.parent for path in mmagic.glob("*/vis_data"))
    assert len(parts) == 2
    run = read_run(mmagic)
    assert (run.host, run.step, run.total) == ("MMagic", 6, 6)
    assert steps(run, "loss_pix") == [1, 2, 3, 4, 5]
    assert steps(run, "PSNR") == [2, 4, 6]
    last = json.loads((parts[1] / "vis_data" / "scalars.json").read_text().splitlines()[-1])
    assert last["step"] == 0  # what MMEngine wrote
    assert run.validation["PSNR"][-1][1] == last["PSNR"]
    assert steps(read_run(parts[0]), "loss_pix") == [1, 2, 3, 4]
    monkeypatch.chdir(parts[1] / "vis_data")
    assert read_run(Path("scalars.json")) == read_run(parts[1] / "vis_data" / "scalars.json")


@pytest.mark.basicsr
def test_a_part_that_was_made_anew_replaces_the_steps_behind_its_start(basicsr: Path, tmp_path: Path) -> None:
    first, second = sorted(basicsr.glob("train_*.log"))
    old, new = read_run(first), read_run(second)
    assert steps(old, "loss_pix") == [2, 4, 6]
    assert steps(new, "loss_pix") == [6, 8, 10]
    assert read_run(basicsr).training["loss_pix"] == old.training["loss_pix"][:2] + new.training["loss_pix"]
    # a run under another name, as BasicSR archives it
    archived = shutil.copytree(basicsr, tmp_path / f"{basicsr.name}_archived_20260101_000000")
    assert read_run(archived) == read_run(basicsr)


def part_of_a_run(first: int, last: int, start: int | None = None) -> RunLog:
    """A part that logged each tenth step; the values tell the part."""
    start = first - 10 if start is None else start
    points = [(step, float(first)) for step in range(first, last + 1, 10)]
    return RunLog("BasicSR", training={"loss_pix": points}, start=start, total=200)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part_of_a_run(110, 200), part_of_a_run(10, 100)], {10: range(10, 101, 10), 110: range(110, 201, 10)}),
        ([part_of_a_run(10, 120), part_of_a_run(110, 200)], {10: range(10, 101, 10), 110: range(110, 201, 10)}),
        (
            [part_of_a_run(10, 100), part_of_a_run(110, 120), part_of_a_run(60, 200)],
            {10: range(10, 51, 10), 60: range(60, 201, 10)},
        ),
    ],
    ids=["a clock that was set back", "a part made anew", "a damaged checkpoint passed over"],
)
def test_parts_are_joined_by_their_steps(parts: list[RunLog], expected: dict[int, range]) -> None:
    joined = RunLog.joined(parts)
    assert joined.training["loss_pix"] == [(step, float(part)) for part, steps in expected.items() for step in steps]
    assert joined.total == 200


@pytest.mark.basicsr
def test_a_run_is_read_while_it_is_written(basicsr: Path, tmp_path: Path) -> None:
    text = min(basicsr.glob("train_*.log")).read_text()
    log = tmp_path / "train_x_20260101_000000.log"
    known, begun = 0, text.index("l_pix: ")
    for end in range(text.index("\n", begun) + 1, len(text), 37):
        log.write_text(text[:end])
        run = read_run(tmp_path)
        assert run.step >= known
        assert all(1e-4 < value < 1 for _, value in run.training["loss_pix"])
        assert all(5 < value < 60 for _, value in run.validation.get("PSNR", []))
        known = run.step
    assert known == 7
    log.write_text(text[: begun + 9])  # half a number
    with pytest.raises(DataError, match="no line of a training step yet"):
        read_run(tmp_path)


@pytest.mark.mmagic
def test_half_a_line_of_mmagic_is_left_out_and_a_damaged_one_named(mmagic: Path, tmp_path: Path) -> None:
    part = shutil.copytree(min(mmagic.glob("2*")), tmp_path / "run" / "20260101_000000")
    scalars = part / "vis_data" / "scalars.json"
    text = scalars.read_text()
    scalars.write_text(text + '{"loss": 0.1, "st')
    assert steps(read_run(tmp_path / "run"), "loss_pix") == [1, 2, 3, 4]
    scalars.write_text("nonsense\n" + text)
    with pytest.raises(DataError, match=r"scalars\.json: line 1 is not what MMEngine logs: 'nonsense'"):
        read_run(tmp_path / "run")
    scalars.write_text("")
    with pytest.raises(DataError, match="no line of a training step yet"):
        read_run(tmp_path / "run")


def test_folders_without_logs_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected the folder of a training at .*nothing, but there is none"):
        read_run(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"neither\. Give experiments/NAME of BasicSR or work_dirs/NAME of MMagic"):
        read_run(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train_x_20260101_000000.log").touch()
    with pytest.raises(DataError, match="There are trainings below it: a, b"):
        read_run(tmp_path)
    (tmp_path / "events.out.tfevents.1.host.1.0").touch()
    with pytest.raises(DataError, match="These are TensorBoard events; give the folder of the training"):
        read_run(tmp_path)


# ------------------------------------------------------------------------------------------------------ compare


def compared(folders: list[Path], out: Path, **options: Any) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    compare_runs(folders, out, **{"keys": None, "smooth": 1, **options}, console=console)
    return console.export_text()


@pytest.mark.basicsr
@pytest.mark.mmagic
def test_runs_of_both_hosts_in_one_picture(
    basicsr: Path, mmagic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contrastive_sr.evaluation import plots

    drawn: list[Any] = []
    save = plots.save_curves
    monkeypatch.setattr(
        plots, "save_curves", lambda path, panels, title: (drawn.extend(panels), save(path, panels, title))
    )
    other = shutil.copytree(basicsr, tmp_path / "other" / basicsr.name)
    printed = compared([basicsr, other, mmagic], tmp_path / "sub" / "curves.png", smooth=3)
    with Image.open(tmp_path / "sub" / "curves.png") as picture:
        assert min(picture.size) > 700
    titles = [panel.title for panel in drawn]
    assert titles == [
        "PSNR",
        "SSIM",
        "periodic dots beyond those of HR (PATTERN)",
        "pixel loss (loss_pix)",
        "pcl discriminator, its own loss (pcl_discriminator)",
        "pcl contrastive, unweighted (pcl_contrastive_raw)",
    ]  # each loss once
    assert [panel.y for panel in drawn] == ["dB", "", "grey levels", "", "single steps", "single steps"]
    names = [f"experiments/{basicsr.name}", f"other/{basicsr.name}", "pcl"]
    assert [list(panel.lines) for panel in drawn[:4]] == [names] * 4
    # MMEngine averages what has "loss" in its name over its window
    kinds = [f"{names[0]}, single steps", f"{names[1]}, single steps", "pcl, means of 10 steps"]
    assert list(drawn[3].names.values()) == kinds
    pixel = [value for _, value in read_run(basicsr).training["loss_pix"]]
    assert drawn[3].lines[names[0]][-1][1] == pytest.approx(sum(pixel[-3:]) / 3)
    assert drawn[0].lines["pcl"] == read_run(mmagic).validation["PSNR"]  # validation is not smoothed

    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    psnr = read_run(mmagic).validation["PSNR"]
    step, best = max(psnr, key=lambda point: point[1])
    assert rows["pcl"][1:3] == ["6", f"{psnr[-1][1]:.2f}"]
    assert f"{best:.2f} @ {step}" in " ".join(rows["pcl"])
    assert rows["loss_pix"][1] == f"{pixel[-1]:.4g}"
    assert "-" in rows["loss"]  # the sum, which BasicSR does not log
    assert "-" not in rows["pcl_discriminator"] + rows["pcl_contrastive_raw"] + rows["lr"]  # one name for both hosts


@pytest.mark.basicsr
def test_a_run_that_trains_and_one_without_validation(basicsr: Path, tmp_path: Path) -> None:
    text = min(basicsr.glob("train_*.log")).read_text()
    short = tmp_path / "short"
    short.mkdir()
    (short / "train_x_20260101_000000.log").write_text(text[: text.index("Validation")])
    printed = compared([short, basicsr], tmp_path / "curves.svg", keys=["l_pix", "psnr", "PSNR"])
    assert "2 of 7" in printed
    assert "Not validated so far: short" in printed
    assert (tmp_path / "curves.svg").read_text().count("<svg") == 1
    with pytest.raises(ConfigError, match=r"do not have 'pnsr'. Did you mean 'PSNR'\? There are PSNR, SSIM, PATTERN,"):
        compared([basicsr], tmp_path / "x.png", keys=["pnsr"])
    with pytest.raises(ConfigError, match=r"Expected different trainings, got .* twice"):
        compared([basicsr, basicsr], tmp_path / "x.png")
    with pytest.raises(ConfigError, match=r"--out: expected a picture to write, .png, .pdf or .svg, got x\.gif"):
        compared([basicsr], Path("x.gif"))
    assert not (tmp_path / "x.png").exists()


# ------------------------------------------------------------------------------------------------------ samples


def look(out: Path, image: Path = CAT, **options: Any) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    settings = {"method": None, "config": None, "checkpoint": None, "size": 64, "scale": 4, "seed": 0, **options}
    draw_samples(image, out, **settings, console=console)
    return console.export_text()


def test_pcl_in_image_and_bands(tmp_path: Path) -> None:
    printed = look(tmp_path / "sub" / "pcl.png", method="pcl")
    assert "Taken: 64 x 64 from the middle of 451 x 300." in printed
    assert "untrained embedding" in printed
    assert [printed.count(f" {role} ") for role in ("positive", "negative")] == [4, 5]
    with Image.open(tmp_path / "sub" / "pcl.png") as picture:
        wide, high = picture.size
        assert wide > 9 * 195
        assert high > 4 * 195
        # the frames say who is who
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours
    assert look(tmp_path / "again.png", method="PCL").partition("SR:")[0] == printed.partition("SR:")[0]
    assert look(tmp_path / "again.png", method="pcl-sr").partition("SR:")[0] == printed.partition("SR:")[0]


@pytest.mark.basicsr
def test_a_trained_run_with_its_methods(basicsr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = basicsr.parents[1] / "options.yml"
    newest = basicsr / "models" / "net_g_latest.pth"
    printed = look(tmp_path / "a.png", config=config, checkpoint=newest)
    assert "SR: EDSR of net_g_latest.pth" in printed
    assert f"Methods: {basicsr / 'training_states'}" in printed.replace("\n", "")
    assert "untrained" not in printed
    with monkeypatch.context() as inside:
        inside.chdir(newest.parent)
        printed = look(tmp_path / "a.png", config=config, checkpoint=Path(newest.name))
    assert f"Methods: {basicsr / 'training_states'}" in printed.replace("\n", "")
    alone = shutil.copy(newest, tmp_path / "alone.pth")
    printed = look(tmp_path / "b.png", config=config, checkpoint=alone)
    assert "SR: EDSR of alone.pth, methods with new weights" in printed
    assert "untrained embedding" in printed
    printed = look(tmp_path / "c.png", config=config)
    assert "SR: bicubic enlargement" in printed
    other = tmp_path / "other.yml"
    content = yaml.safe_load("\n".join(line for line in config.read_text().splitlines() if "!!python" not in line))
    content["methods"][0]["name"] = "mine"
    other.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="it was trained with pcl, and the config has mine"):
        look(tmp_path / "d.png", config=other, checkpoint=newest)


@pytest.mark.mmagic
def test_a_checkpoint_of_mmagic_has_its_methods(mmagic: Path, tmp_path: Path) -> None:
    config = mmagic.parents[1] / "pcl.py"
    printed = look(tmp_path / "a.png", config=config, checkpoint=max(mmagic.glob("iter_*.pth")))
    assert "SR: EDSRNet of iter_" in printed
    assert "untrained" not in printed


def test_methods_that_read_the_network_get_it(tmp_path: Path) -> None:
    printed = look(tmp_path / "nce.png", config=PROJECT / "plugins" / "demo_nce_edsr.yml")
    assert "SR: EDSR with new weights" in printed
    printed = look(tmp_path / "cria.png", config=PROJECT / "plugins" / "demo_cria_rrdb_x4.yml")
    assert "mask 1 - S" in printed


def test_images_of_all_kinds(tmp_path: Path) -> None:
    with Image.open(CAT) as cat:
        cat.convert("L").save(tmp_path / "grey.png")
        cat.crop((0, 0, 20, 40)).save(tmp_path / "tiny.png")
        Image.new("I;16", (64, 64)).save(tmp_path / "deep.png")
    assert "HighResolution" in look(tmp_path / "x.png", tmp_path / "grey.png", method="pcl", size=10_000)
    for name, message in (
        ("tiny.png", "is 20 x 40; expected an HR image of at least 32 x 32"),
        ("deep.png", "more than 8 bits"),
        ("none.png", "Expected an image at .*none.png, but there is none"),
        (".", "Expected an image, got the folder .*Name one of its images"),
    ):
        with pytest.raises(DataError, match=message):
            look(tmp_path / "y.png", tmp_path / name, method="pcl")
    (tmp_path / "broken.png").write_bytes(CAT.read_bytes()[:4000])
    with pytest.raises(DataError, match="cannot be read as an image"):
        look(tmp_path / "y.png", tmp_path / "broken.png", method="pcl")
    assert not (tmp_path / "y.png").exists()


def test_what_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        ({}, "Expected one of --method NAME and --config FILE"),
        ({"method": "pcl", "config": Path("x.yml")}, "Expected one of --method NAME and --config FILE"),
        ({"method": "plc"}, "got 'plc'. Did you mean 'PCL'"),
        ({"method": "pcl", "checkpoint": Path("x.pth")}, "--checkpoint: expected --config with it"),
        ({"method": "pcl", "scale": 7}, "from 2 to 4, got 7"),
        ({"method": "pcl", "seed": 2**70}, "--seed: expected a whole number below 2"),
        ({"method": "true_kernel"}, "nothing to draw, since it compares nothing"),
        ({"config": tmp_path / "none.yml"}, r"Expected the file .*none\.yml"),
    ):
        with pytest.raises(ConfigError, match=message):
            look(tmp_path / "x.png", **options)

    class Mine(Method):
        def __init__(self, strength: float) -> None:
            super().__init__("mine")

    monkeypatch.setitem(METHODS, "Mine", Mine)
    with pytest.raises(ConfigError, match=r"Mine cannot be built with its defaults .*strength.*Use --config"):
        look(tmp_path / "x.png", method="mine")
    monkeypatch.setattr(Mine, "__init__", lambda self: Method.__init__(self, "mine"))
    with pytest.raises(ConfigError, match=r"Mine does not say what it compares\. Give the class a method"):
        look(tmp_path / "x.png", method="mine")
    assert not (tmp_path / "x.png").exists()
    assert torch.is_grad_enabled()
    before = shutil.copy(CAT, tmp_path / "cat.png").read_bytes()
    with pytest.raises(ConfigError, match=r"--out: .*cat.png is an image that the picture would be made of"):
        look(tmp_path / "cat.png", tmp_path / "cat.png", method="pcl")
    assert (tmp_path / "cat.png").read_bytes() == before


def test_both_commands(tmp_path: Path) -> None:
    command = CliRunner().invoke(
        app, ["samples", str(CAT), "--method", "dasr", "--size", "64", "--out", str(tmp_path / "dasr.png")]
    )
    assert command.exit_code == 0, command.output
    assert (tmp_path / "dasr.png").is_file()
    command = CliRunner().invoke(app, ["compare", "nothing", "--out", str(tmp_path / "curves.png")])
    assert "Expected the folder of a training at nothing" in str(command.exception)
    command = CliRunner().invoke(app, ["samples", str(CAT), "--method", "pcl", "--size", "20"])
    assert command.exit_code == 2


def test_a_value_that_is_nan_is_not_the_best() -> None:
    points = [(10, float("nan")), (20, 25.5), (30, 26.0)]
    assert best(points, "PSNR") == (30, 26.0)
    assert best(points, "LPIPS") == (20, 25.5)
    assert best(points, "JAGGEDNESS") == best(points, "PATTERN") == (20, 25.5)
    assert best(points[:1], "PSNR")[0] == 10
