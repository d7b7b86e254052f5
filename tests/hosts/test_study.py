"""Studies through both hosts: killed and gone on with, equal batches over arms, and a ledger that is enough."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmagic_helpers as helpers
import pytest
import torch
from basicsr_options import write_options
from PIL import Image
from rich.console import Console

from contrastive_sr.cli.study import Settings, parse_arm, run_study
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, HostError
from contrastive_sr.evaluation.data_sets import DataSet, bicubic_lr
from contrastive_sr.evaluation.study import RESUMED, Ledger
from contrastive_sr.hosts.basicsr.study import BasicSRStudy
from contrastive_sr.hosts.study import (
    CROPS,
    RUNS,
    Measurement,
    Plan,
    Study,
    check_own,
    digest_of,
    read_crops,
    with_paths,
)
from contrastive_sr.hosts.trained import network_of_options

BATCHES = Path(__file__).with_name("study_batches.py")
TINY = {"methods": None, "model_type": "SRModel", "train:optim_methods": None, "datasets:val": None, "val": None}
TINY |= {"network_g:num_feat": 8, "network_g:num_block": 1, "train:total_iter": 1000}
PAIRS = "positives: [{type: HighResolution}], negatives: [{type: GaussianBlur}]"
PCL = f"methods=[{{type: PCL, every: 1, loss_share: 0.2, {PAIRS}}}]"
STEPS = 12


@pytest.fixture
def folder(tmp_path: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `base.yml`, whose paths are relative, and a small set of images to test on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, BATCHES.stem, raising=False)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/demo").symlink_to(demo_data)
    write_options(tmp_path, "demo_pcl_edsr", Path("datasets/demo"), TINY, file="base.yml")
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        with Image.open(demo_data / "val/HR/chelsea.png") as image:
            for number in range(2):
                image.crop((60 * number, 20, 60 * number + 64, 84)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def study(base: str | None, *arms: str, report_only: bool = False, **options: Any) -> str:
    """The command in this process; what it prints."""
    console = Console(width=200, record=True, file=io.StringIO())
    settings = Settings(arms=dict(map(parse_arm, arms)), **{"out": Path("out"), "hr": ["mine"], **options})
    run_study(None if base is None else Path(base), settings, report_only=report_only, console=console)
    return console.export_text()


def batches(run: str) -> list[str]:
    return Path(f"out/runs/batches-{run}.txt").read_text().split()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    while not what():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def tables(folder: Path) -> dict[str, bytes]:
    names = "study.json", "study.md", "study.html", "results.csv"
    # the page says when it was written
    return {name: re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", (folder / name).read_bytes()) for name in names}


@pytest.mark.slow
@pytest.mark.basicsr
@pytest.mark.timeout(600)
def test_study_through_basicsr(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while two trainings run; gone on with; then everything but the ledger and crops is thrown away."""
    monkeypatch.setenv("STUDY_HOST", "basicsr")
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = network_of_options("{type: EDSR, num_feat: 8, num_block: 1, res_scale: 1}", 4)
        torch.save({"params": net.state_dict()}, f"start-{seed}.pth")
    arms = ("l1", f"pcl={PCL}")
    options: dict[str, Any] = {"seeds": [0, 1], "steps": STEPS, "start": "start-{seed}.pth", "processes": 2}
    command = [sys.executable, "-m", "contrastive_sr.cli", "study", "base.yml", "--seeds", "2", "--steps", str(STEPS)]
    command += [part for arm in arms for part in ("--arm", arm)]
    command += ["--start", "start-{seed}.pth", "--processes", "2", "--hr", "mine", "--out", "out"]
    command += ["--import", str(BATCHES)]
    slow = {**os.environ, "PYTHONPATH": str(helpers.ROOT), "STUDY_SLEEP": "0.5"}
    with subprocess.Popen(command, env=slow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        runs = [Path("out/runs/experiments", name) for name in ("l1-0", "pcl-0")]
        wait_for(lambda: all(any(run.glob("training_states/*.state")) for run in runs), process)
        with pytest.raises(HostError, match="Another study is writing into out"):
            study("base.yml", *arms, **options)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # the trainings end with it
    before = [batches("l1-0"), batches("pcl-0")]
    time.sleep(1)
    assert before == [batches("l1-0"), batches("pcl-0")]
    assert all(len(seen) < STEPS for seen in before)
    assert {result.arm for result in Ledger(Path("out/results.csv")).results} == {"start"}

    printed = study("base.yml", *arms, imports=[BATCHES], **options)
    assert printed.count("goes on from its last checkpoint") == 2
    assert printed.index("l1, seed 1: trains") > printed.index("l1, seed 0: goes on")
    ledger = Ledger(Path("out/results.csv")).results
    counts = Counter((result.arm, result.seed) for result in ledger if result.metric == "psnr_y")
    assert counts == {(arm, seed): 2 for arm in ("start", "l1", "pcl") for seed in (0, 1)}
    assert {(result.arm, result.seed) for result in ledger if result.metric == RESUMED} == {("l1", 0), ("pcl", 0)}
    assert "Stopped and gone on from a checkpoint" in printed

    # one seed: the same batches, which are those of no other seed; and the same start, which arms do not leave alike
    assert batches("l1-1") == batches("pcl-1")
    assert len(set(batches("l1-1"))) == STEPS
    assert not set(batches("l1-1")) & set(batches("l1-0"))
    content = json.loads(Path("out/study.json").read_text())
    of = content["results"]["mine"]
    assert of["l1"]["psnr_y"]["mean"] > of["start"]["psnr_y"]["mean"]
    assert of["pcl"]["psnr_y"]["difference"]["mean"] != 0
    assert content["cost"]["pcl"]["ratio"] > 1
    # what was saved to go on from is gone
    assert [path.name for path in sorted(Path("out/runs").rglob("*.pth")) if "net_g" in path.name] == [
        "net_g_latest.pth"
    ] * 4
    assert not list(Path("out/runs").rglob("*.state"))

    # another set of images is measured with the networks that are there
    printed = study("base.yml", *arms, **{**options, "hr": ["mine", "other"], "start": "start-{seed}.pth"})
    assert "trains" not in printed
    assert printed.count("dB on other") == 6

    # the ledger alone: nothing is trained, and tables and page are the same to the byte
    kept = tables(Path("out"))
    shutil.rmtree("out/runs")
    for name in ("study.json", "study.md", "study.html", "frontier.png"):
        Path("out", name).unlink(missing_ok=True)
    for seed in (0, 1):
        Path(f"start-{seed}.pth").unlink()
    printed = study("base.yml", *arms, **{**options, "hr": ["mine", "other"]})
    assert "trains" not in printed
    assert tables(Path("out")) == kept
    Path("base.yml").unlink()
    printed = study(None, report_only=True)
    assert tables(Path("out")) == kept
    assert "Differences from l1" in printed


@pytest.mark.slow
@pytest.mark.mmagic
@pytest.mark.timeout(600)
def test_study_through_mmagic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config with PCL, and an arm without it; both from one start, which is a checkpoint."""
    monkeypatch.setenv("STUDY_HOST", "mmagic")
    base = helpers.write_config(folder / "base.py", "demo_pcl_edsr", steps=4, save=4, more=MMAGIC)
    net = network_of_options(
        "{type: mmagic.EDSRNet, mid_channels: 8, num_blocks: 1, upscale_factor: 4, res_scale: 1}", 4
    )
    torch.save(net.state_dict(), "start.pth")
    pcl = "pcl=model.methods=[{type: PCL, every: 1, loss_share: 3.0}]"
    printed = study(base.name, "l1=model.methods=null", pcl, seeds=[0], steps=4, start="start.pth", imports=[BATCHES])
    assert batches("l1-0") == batches("pcl-0")
    assert len(set(batches("l1-0"))) == 4
    of = json.loads(Path("out/study.json").read_text())["results"]["mine"]
    assert of["pcl"]["psnr_y"]["difference"]["interval"] is None
    assert of["start"]["psnr_y"]["mean"] < of["l1"]["psnr_y"]["mean"] != of["pcl"]["psnr_y"]["mean"]
    assert "(one seed)" in printed
    assert "pcl" in Path("out/runs/configs/pcl-0.py").read_text()
    shutil.rmtree("out/runs")
    again = study(base.name, "l1=model.methods=null", pcl, seeds=[0], steps=4, start="start.pth")
    assert "trains" not in again


MMAGIC = """
model = dict(generator=dict(mid_channels=8, num_blocks=1))
"""


# ---------------------------------------------------------------------------------------- refused before training


@pytest.mark.basicsr
@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("a=train.optim_g.lrr=1.0", r"arm a: train\.optim_g does not know the key 'lrr'\. Did you mean 'lr'\?"),
        ("a=method=[{type: PCL}]", r"arm a: the base does not know the key 'method'\. Did you mean 'methods'\?"),
        ("a=methods=[{type: PCL, loss_shar: 0.2}]", r"arm a: .*PCL does not know the key 'loss_shar'.*'loss_share'"),
        ("a=methods=[{type: PCK}]", r"arm a: .*does not know the type 'PCK'.*Did you mean 'PCL'"),
        ("a=network_g.num_feet=4", r"arm a: network_g does not know the key 'num_feet'\. Did you mean 'num_feat'\?"),
        ("a=network_g={type: RCAN, num_feet: 4}", r"arm a: network_g: RCAN does not know the key 'num_feet'"),
        ("a=train.pixel_opt.loss_wieght=2", r"arm a: train\.pixel_opt .*Did you mean 'loss_weight'\?"),
        ("a=datasets.train.gt_sise=64", r"arm a: datasets\.train .*Did you mean 'gt_size'\?"),
        ("a=train.total_iter=9", r"arm a: train\.total_iter is set by the study: use --steps\."),
        ("a=datasets.train.dataroot_gt=nowhere", r"arm a: datasets: train: dataroot_gt: expected an existing folder"),
        ("a b", r"arm 'a b': expected a name of letters"),
    ],
)
def test_arms_are_refused_before_training_with_basicsr(folder: Path, arm: str, message: str) -> None:
    with pytest.raises(ContrastiveSRError, match=message):
        study("base.yml", "l1", arm)
    assert not list(folder.glob("out/runs/experiments"))


@pytest.mark.mmagic
def test_arms_are_refused_before_training_with_mmagic(folder: Path) -> None:
    from contrastive_sr.hosts.mmagic.study import MMagicStudy

    base = helpers.write_config(folder / "base.py", "demo_pcl_edsr", steps=4, save=4, more=MMAGIC)
    host = MMagicStudy(base)
    for arm, message in {
        "a=model.metods=null": r"model does not know the key 'metods'\. Did you mean 'methods'\?",
        "a=model.generator.mid_chanels=4": r"model\.generator .*Did you mean 'mid_channels'\?",
        "a=optim_wrapper.generator.optimizer.lrr=1.0": r"optim_wrapper\.generator\.optimizer .*mean 'lr'",
        "a=train_dataloader.batch_sise=1": r"train_dataloader .*Did you mean 'batch_size'\?",
        "a=randomness.seed=1": r"randomness\.seed is set by the study: use --seeds\.",
    }.items():
        with pytest.raises(ConfigError, match=message):
            host.options(parse_arm(arm)[1])
    for arm, message in {
        "a=model.methods=[{type: PCL, loss_shar: 0.2}]": r"arm a: .*PCL does not know the key 'loss_shar'",
        "a=train_dataloader.dataset.data_root=nowhere": r"arm a: .*nowhere",
    }.items():
        with pytest.raises(ContrastiveSRError, match=message):
            study(base.name, arm)
    assert not list(folder.glob("out/runs/work_dirs"))


@pytest.mark.basicsr
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hr": []}, ConfigError, "--hr: expected a folder of HR images"),
        ({"start": "nowhere.pth"}, ConfigError, "--start: expected an existing checkpoint, got nowhere.pth"),
        ({"start": "a", "start_steps": 3}, ConfigError, "Expected one of --start, .* and --start-steps"),
        ({"steps": 0}, ConfigError, "--steps: expected a whole number of at least 1"),
        ({"minutes": -1.0}, ConfigError, "--minutes: expected a number above 0"),
        ({"lr": [Path("nowhere")]}, DataError, "--lr: expected a folder of images"),
    ],
)
def test_settings_are_refused(folder: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        study("base.yml", "l1", f"pcl={PCL}", **options)


@pytest.mark.basicsr
def test_a_start_is_of_the_network_of_all_arms(folder: Path) -> None:
    with pytest.raises(ConfigError, match="arm wide: its network is not the base's"):
        study("base.yml", "l1", "wide=network_g.num_feat=16", start_steps=3)
    net = network_of_options("{type: EDSR, num_feat: 16, num_block: 1}", 4)
    torch.save({"params": net.state_dict()}, "start.pth")
    with pytest.raises(ConfigError, match=r"--start: start\.pth is not of the base's network"):
        study("base.yml", "l1", start="start.pth")


@pytest.mark.basicsr
def test_other_settings_under_an_old_name_are_refused(folder: Path) -> None:
    """And a ledger is that of the same settings on every machine."""
    printed = study("base.yml", "l1", minutes=1e-9)
    assert "The time is up" in printed
    digest = yaml_digest("l1")
    path = Path("out/results.csv")
    with path.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", "digest", "dataset", "image", "metric", "value"])
        writer.writerow(["l1", 0, digest, "mine", "0.png", "psnr_y", 20.0])
    study("base.yml", "l1", minutes=1e-9)
    shutil.copytree("datasets/demo", "elsewhere/demo")
    text = Path("base.yml").read_text()
    assert "datasets/demo/train/HR" in text
    Path("base.yml").write_text(text.replace("datasets/demo", str(folder / "elsewhere/demo")))
    assert yaml_digest("l1") != digest  # a relative path of before is another place
    Path("base.yml").write_text(re.sub(r"^  print_freq: .*$", "  print_freq: 7", text, flags=re.MULTILINE))
    study("base.yml", "l1", minutes=1e-9)
    with pytest.raises(ConfigError, match=r"arm l1, seed 0: the ledger has results of other settings"):
        study("base.yml", "l1=train.optim_g.lr=0.1", minutes=1e-9)
    with pytest.raises(ConfigError, match=r"the ledger has results of other settings"):
        study("base.yml", "l1", steps=3, minutes=1e-9)


def yaml_digest(arm: str, changes: Mapping[str, Any] | None = None) -> str:
    plan = Plan(Path("base.yml"), {arm: changes or {}}, [0], Path("other_out"))
    return Study(plan, BasicSRStudy(Path("base.yml"))).trainings[0].digest


def write_ledger(*lines: tuple[Any, ...]) -> None:
    Path("out").mkdir(exist_ok=True)
    with Path("out/results.csv").open("w") as file:
        csv.writer(file).writerows([("arm", "seed", "digest", "dataset", "image", "metric", "value"), *lines])


def save_start(path: str, seed: int) -> None:
    torch.manual_seed(seed)
    net = network_of_options("{type: EDSR, num_feat: 8, num_block: 1, res_scale: 1}", 4)
    torch.save({"params": net.state_dict()}, path)


@pytest.mark.basicsr
@pytest.mark.timeout(300)
def test_a_study_goes_on_in_another_folder_and_no_training_is_lost(folder: Path) -> None:
    command = [sys.executable, "-m", "contrastive_sr.cli", "study", "base.yml", "--seeds", "1", "--steps", "100000"]
    command += ["--arm", "l1", "--hr", "mine", "--out", "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        states = Path("out/runs/experiments/l1-0/training_states")
        wait_for(lambda: any(states.glob("*.state")), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    Path("out").rename("moved")
    kept = sorted(path.name for path in Path("moved/runs/experiments/l1-0/training_states").iterdir())
    settings: dict[str, Any] = {"seeds": [0], "steps": 100000, "out": Path("moved")}
    with pytest.raises(ConfigError, match=r"arm l1, seed 0: a training of other settings is in .*moved"):
        study("base.yml", "l1=train.optim_g.lr=0.1", minutes=0.1, **settings)
    assert kept == sorted(path.name for path in Path("moved/runs/experiments/l1-0/training_states").iterdir())
    assert "l1, seed 0: goes on from its last checkpoint" in study("base.yml", "l1", minutes=0.05, **settings)

    study("base.yml", "l1", seeds=[0], steps=2)
    Path("out").rename("done")
    both: dict[str, Any] = {"seeds": [0], "steps": 2, "out": Path("done"), "hr": ["mine", "other"]}
    assert "The time is up" in study("base.yml", "l1", minutes=1e-9, **both)
    study("base.yml", "l1", **both)
    results = Ledger(Path("done/results.csv")).results
    assert {result.dataset for result in results if result.arm == "l1"} == {"", "mine", "other"}


@pytest.mark.basicsr
def test_an_arm_with_another_discriminator_to_begin_with_is_another(folder: Path) -> None:
    assert yaml_digest("l1", {"path.strict_load_g": True}) == yaml_digest("l1")
    assert yaml_digest("l1", {"path.strict_load_g": False}) != yaml_digest("l1")


@pytest.mark.basicsr
def test_other_images_under_an_old_name_are_refused(folder: Path) -> None:
    write_ledger(("l1", 0, yaml_digest("l1"), "mine", "0.png", "psnr_y", 20.0))
    study("base.yml", "l1", seeds=[0], minutes=1e-9)
    with pytest.raises(DataError, match=r"mine: the ledger has results of other LR images \(bicubic .*; now: dasr-"):
        study("base.yml", "l1", seeds=[0], minutes=1e-9, degradation="dasr-table1-width1.8-x4")
    shutil.copy("other/1.png", "mine/2.png")
    with pytest.raises(DataError, match=r"mine: the ledger has results of other images. Give this data set another"):
        study("base.yml", "l1", seeds=[0], minutes=1e-9)
    study("base.yml", "l1", seeds=[0], minutes=1e-9, hr=["more=mine"])


@pytest.mark.basicsr
def test_other_images_of_the_same_names_and_sizes_are_refused(folder: Path) -> None:
    Image.new("RGB", (64, 64), "red").save("mine/0.bmp")
    write_ledger(("l1", 0, yaml_digest("l1"), "mine", "0.bmp", "psnr_y", 20.0))
    study("base.yml", "l1", seeds=[0], minutes=1e-9)
    size = Path("mine/0.bmp").stat().st_size
    Image.new("RGB", (64, 64), "blue").save("mine/0.bmp")
    assert Path("mine/0.bmp").stat().st_size == size
    with pytest.raises(DataError, match=r"mine: the ledger has results of other images"):
        study("base.yml", "l1", seeds=[0], minutes=1e-9)
    Path("mine/0.bmp").unlink()
    Path("mine/0.bmp").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"0\.bmp cannot be read \(No such file or directory\)"):
        study("base.yml", "l1", seeds=[0], minutes=1e-9)


@pytest.mark.basicsr
def test_another_start_is_refused(folder: Path) -> None:
    """Of the same file name, too; and what was trained from another start is trained again."""
    save_start("start.pth", 0)
    options: dict[str, Any] = {"seeds": [0], "minutes": 1e-9, "start": "start.pth"}
    study("base.yml", "l1", **options)
    plan = Plan(Path("base.yml"), {"l1": {}}, [0], Path("out"), start="start.pth")
    start, first = Study(plan, BasicSRStudy(plan.base)).trainings
    save_start("start.pth", 1)
    second = Study(plan, BasicSRStudy(plan.base)).trainings[1]
    assert second.text != first.text
    assert second.digest == first.digest  # a ledger is that of the same settings on every machine
    save_start("start.pth", 0)
    write_ledger(("start", 0, start.digest, "mine", "0.png", "psnr_y", 20.0))
    study("base.yml", "l1", **options)
    save_start("start.pth", 1)
    with pytest.raises(ConfigError, match="the start, seed 0: the ledger has results of another"):
        study("base.yml", "l1", **options)
    with pytest.raises(ConfigError, match="the start, seed 0: the ledger has results of another"):
        study("base.yml", "l1", **{**options, "start": None, "start_steps": 3})


@pytest.mark.basicsr
def test_no_arm_begins_from_an_earlier_start(folder: Path) -> None:
    plan = Plan(Path("base.yml"), {"l1": {}}, [0, 1], Path("out"), start_steps=3)
    made = Study(plan, BasicSRStudy(plan.base))
    for seed in (0, 1):
        made._write_start(seed, {})
    start, arm, other_start, other_arm = made.trainings
    assert made._next([arm, other_arm], [start, other_start]) is None
    assert made._next([arm, other_start, other_arm], [start]) is other_start
    assert made._next([arm, other_arm], [other_start]) is arm


@pytest.mark.basicsr
def test_a_metric_that_fails_is_told_and_tried_again(folder: Path) -> None:
    save_start("start.pth", 0)
    plan = Plan(Path("base.yml"), {"l1": {}}, [0], Path("out"), start="start.pth")
    broken = [True]

    def odd(sr: Any, hr: Any) -> float:
        if broken:
            broken.pop()
            raise RuntimeError("out of memory")
        return 1.0

    data = DataSet("mine", sorted(Path("mine").iterdir()))
    tests = Measurement([data], bicubic_lr(4), {"odd": odd}, torch.device("cpu"))  # type: ignore[dict-item]
    made, lines = Study(plan, BasicSRStudy(plan.base)), list[str]()
    made._measure(made.trainings[0], tests, lines.append)
    assert lines[0] == "start, seed 0: odd failed on 0.png of mine (RuntimeError: out of memory)"
    assert made._notes(tests)[-1] == f"{lines[0]}. Means are of the other images."
    values = [(result.image, result.value) for result in made.ledger.results if result.metric == "odd"]
    assert values == [("1.png", 1.0)]
    assert made._missing(made.trainings[0], tests) == [(data, ["odd"])]
    # a later run that has the checkpoint no more says so on the page, too
    later = Study(plan, BasicSRStudy(plan.base))
    later._checkpoint(later.trainings[0]).rename("away.pth")
    later._measure(later.trainings[0], tests, lines.append)
    gone = "start, seed 0: odd not measured on mine, since its checkpoint is gone"
    assert (lines[-1], later._notes(tests)[-1]) == (gone, f"{gone}. Means are of the images that were measured.")
    Path("away.pth").rename(later._checkpoint(later.trainings[0]))
    made._measure(made.trainings[0], tests, lines.append)
    assert made._missing(made.trainings[0], tests) == []


@pytest.mark.basicsr
def test_the_first_arm_stays_the_reference(folder: Path) -> None:
    """Also where another was finished first."""
    digests = {arm: yaml_digest(arm) for arm in ("l1", "again")}
    lines = [(arm, 0, digests[arm], "mine", "0.png", "psnr_y", 20.0) for arm in ("again", "l1")]
    write_ledger(*lines)
    assert "Differences from again" in study(None, report_only=True)
    study("base.yml", "l1", "again", seeds=[0], minutes=1e-9)
    assert "Differences from l1" in study(None, report_only=True)


def test_trainings_of_another_origin_stay(tmp_path: Path) -> None:
    """As of a folder `basicsr` with a checkout in it, below which `demo --fresh` would remove `runs`."""
    check_own(tmp_path)
    mine = tmp_path / RUNS / "mine.pth"
    mine.parent.mkdir()
    check_own(tmp_path)
    mine.touch()
    with pytest.raises(
        ConfigError, match=r"--out: expected a folder that is missing, empty, .*whose runs has files of"
    ):
        check_own(tmp_path)
    (tmp_path / "notes.json").touch()  # of an earlier version
    check_own(tmp_path)


def test_crops_lie_in_their_folder(tmp_path: Path) -> None:
    summary = SimpleNamespace(measured={"..": ["l1"]}, values={("..", "l1", "psnr_y"): {0: {"a.png": 20.0}}})
    with pytest.raises(ConfigError, match="expected names that are no paths"):
        read_crops(tmp_path / "out" / CROPS, summary)  # type: ignore[arg-type]


def test_digests_do_not_tell_machines_apart() -> None:
    first = {"dataroot_gt": "/home/me/DIV2K/HR", "lr": 1e-4, "list": [("~/a/vgg.pth", 3)]}
    second = {"list": [["/data/vgg.pth", 3]], "lr": 1e-4, "dataroot_gt": "/data/set/HR"}
    assert digest_of(first) == digest_of(second)
    assert digest_of(first) != digest_of({**first, "lr": 2e-4})


def test_paths_hold_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/HR").mkdir(parents=True)
    (tmp_path / "vgg.pth").touch()
    (tmp_path / "EDSR").touch()
    given = {"dataroot_gt": "data", "gt": ["data/HR", "vgg.pth"], "type": "EDSR", "w": "gone.pth", "n": 3}
    assert with_paths(given) == {
        **given,
        "dataroot_gt": str(tmp_path / "data"),
        "gt": [str(tmp_path / "data/HR"), str(tmp_path / "vgg.pth")],
    }
    below = {"data_root": "data", "data_prefix": {"gt": "data/HR"}}
    assert with_paths(below) == {**below, "data_root": str(tmp_path / "data")}
