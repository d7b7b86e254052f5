"""A training does the steps that it was asked for, and a resumed one says what is in force; with BasicSR."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr import runner
from contrastive_sr.hosts.basicsr.resumed import RECORD
from contrastive_sr.hosts.basicsr.steps import last_epoch
from tests.hosts.basicsr_options import forget_log, load, write_options

pytestmark = pytest.mark.basicsr

NAME = "demo_pcl_edsr"
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def three_pairs(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs: of batches of two, a complete one and a half."""
    folder = tmp_path_factory.mktemp("three_pairs")
    for kind in ("HR", "LRx4"):
        (folder / "train" / kind).mkdir(parents=True)
        for source in sorted((demo_data / "train" / kind).iterdir())[:3]:
            shutil.copy(source, folder / "train" / kind)
    return folder


@pytest.fixture
def train(three_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train a tiny network without methods in this process, and return the folder of its results."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **changes: Any) -> Path:
        tiny = {
            "model_type": "SRModel",
            "methods": None,
            "train:optim_methods": None,
            "val": None,
            "datasets:val": None,
        }
        tiny |= {"network_g:num_feat": 4, "network_g:num_block": 1, "datasets:train:num_worker_per_gpu": 0}
        tiny |= {"datasets:train:dataset_enlarge_ratio": 1, "logger:use_tb_logger": False, "logger:print_freq": 1}
        options = write_options(tmp_path, NAME, three_pairs, {**tiny, **changes.pop("options", {})})
        forget_log()
        runner.train(options, list(arguments))
        return tmp_path / "experiments" / NAME

    return run


def logged(folder: Path) -> str:
    """The newest log."""
    return max(folder.glob("train_*.log"), key=lambda log: log.stat().st_mtime_ns).read_text()


def test_all_steps_are_made_and_a_resumed_training_says_what_is_in_force(train: Train) -> None:
    """BasicSR plans two steps an epoch and makes one; it would end after 4 of 5 steps."""
    asked = {"train:total_iter": 5, "logger:save_checkpoint_freq": 5, "train:scheduler:milestones": [2, 4]}
    folder = train(options=asked)
    assert load(folder / "training_states/5.state")["iter"] == 5
    assert "iter:       5," in logged(folder)
    assert "an epoch has 1 steps; the last epoch is 5." in logged(folder)
    record = json.loads((folder / RECORD).read_text())
    assert record["train"]["optim_g"]["type"] == "Adam"  # which the model takes out
    assert record["datasets"]["train"]["batch_size_per_gpu"] == 2

    # By BasicSR's count, one epoch of three steps: it would begin at epoch 4 and make none.
    then = record["train"]["optim_g"]["lr"]
    now = {
        "train:total_iter": 8,
        "logger:save_checkpoint_freq": 8,
        "train:scheduler:milestones": [6],
        "train:optim_g:lr": 2 * then,
        "datasets:train:batch_size_per_gpu": 1,
    }
    train("--auto_resume", options=now)
    state, log = load(folder / "training_states/8.state"), logged(folder)
    assert state["iter"] == 8
    assert state["optimizers"][0]["param_groups"][0]["initial_lr"] == then
    assert f"train: optim_g: lr {then} is in force, not {2 * then}" in log
    assert "train: scheduler: milestones [2, 4] is in force, not [6]" in log
    assert f"path: pretrain_network_g: {folder / 'models/net_g_5.pth'}" in log
    assert "in force from step 6" in log
    assert "datasets: train: batch_size_per_gpu 1, was 2" in log
    assert "optim_g" not in log.partition("in force from step 6")[2].partition("\n")[0]

    with pytest.raises(ConfigError, match=r"total_iter: expected at least the 8 steps of .*8\.state, got 7"):
        train("--auto_resume", options={**now, "train:total_iter": 7})
    before = sorted(folder.rglob("*"))
    train("--auto_resume", options={**now, "train:scheduler:milestones": [2, 4], "train:optim_g:lr": then})
    assert "in force" not in logged(folder)
    assert {path.suffix for path in set(folder.rglob("*")) - set(before)} <= {".log"}  # nothing was left to train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets:train:batch_size_per_gpu": 4}, r"one batch of 4 in each epoch, got 3 .*ratio to 2 or more"),
        ({"datasets:train:dataset_enlarge_ratio": 0.5, "datasets:train:batch_size_per_gpu": 3}, "ratio to 1 or more"),
        ({"datasets:train:dataset_enlarge_ratio": 0}, "dataset_enlarge_ratio: expected a number above 0, got 0"),
        ({"train:total_iter": 0.5}, "total_iter: expected a number of at least 1"),
    ],
)
def test_a_training_that_would_make_no_step(options: dict[str, Any], message: str, train: Train) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        train(options=options)
    assert not Path("experiments").exists()


def test_stock_pairs_too_make_a_step_or_are_refused(train: Train) -> None:
    options = {"datasets:train:type": "PairedImageDataset", "datasets:train:batch_size_per_gpu": 4}
    with pytest.raises(DataError, match="no step would be made"):
        train(options={**options, "train:total_iter": 5})


@pytest.mark.parametrize("total", [1, 7, 20])
@pytest.mark.parametrize("per_epoch", [1, 3, 40])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (5, 6), (1, 20), (9, 1)])
def test_epochs_are_enough_for_all_steps(total: int, per_epoch: int, epoch: int, step: int) -> None:
    """Also where a resumed training has longer or shorter epochs than its earlier part."""
    epochs = range(epoch, last_epoch(total, per_epoch, {"epoch": epoch, "iter": step}) + 1)
    assert step + (len(epochs) - 1) * per_epoch >= total
    assert (len(epochs) - 1) * per_epoch < max(total - step, 0) + per_epoch
    assert len(epochs) - 1 == math.ceil(max(total - step, 0) / per_epoch)
