"""Faults and hostile names in trainings with BasicSR: none ends as if all was well or reaches files of others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import small_disk
from torch import nn

from contrastive_sr.data.files import locked
from contrastive_sr.errors import ConfigError, DataError, HostError, NonFiniteError, SaveError
from contrastive_sr.hosts.basicsr import folders, runner
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.saving import with_proven_saves
from tests.hosts.basicsr_options import forget_log, load, write_options

pytestmark = pytest.mark.basicsr

TINY: dict[str, Any] = {
    "network_g:num_feat": 4,
    "network_g:num_block": 1,
    "val": None,
    "datasets:val": None,
    "logger:use_tb_logger": False,
    "logger:print_freq": 1,
    "logger:save_checkpoint_freq": 1,
    "train:total_iter": 2,
}
STOCK = {"model_type": "SRModel", "methods": None}
"""Without methods: BasicSR's own model, which our runner trains."""
Train = Callable[..., Path]


@pytest.fixture
def train(demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train a tiny network in this process, in an empty folder; gives the folder of the run."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **changes: Any) -> Path:
        options = write_options(tmp_path, "demo_pcl_edsr", demo_data, {**TINY, **changes})
        forget_log()
        runner.train(options, list(arguments))
        return tmp_path / "experiments/demo_pcl_edsr"

    return run


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["../../victim", "..", "a/b", "link"])
def test_a_name_leads_into_its_root(name: str, train: Train, tmp_path: Path) -> None:
    victim = tmp_path.parent / "victim"
    victim.mkdir(exist_ok=True)
    (victim / "mine.txt").touch()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/link").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"name: expected that of a folder in experiments/ and tb_logger/, got "):
        train(name=name)
    assert files(victim) == ["mine.txt"]
    assert files(tmp_path / "experiments") == ["link"]


def test_resume_passes_over_what_is_damaged_and_logs_do_not_meet(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(**{**STOCK, "train:total_iter": 4})
    (folder / "training_states/4.state").write_bytes(b"")
    network = load(folder / "models/net_g_3.pth")
    next(iter(network["params"].values())).fill_(torch.nan)
    torch.save(network, folder / "models/net_g_3.pth")
    named = {"path:resume_state": str(folder / "training_states/3.state")}
    with pytest.raises(NonFiniteError, match=r"resume_state: .*net_g_3\.pth: expected finite numbers in params\."):
        train(**{**STOCK, "train:total_iter": 5, **named})
    with locked(tmp_path / "experiments/.demo_pcl_edsr.lock"), pytest.raises(HostError, match="Another training is"):
        train("--auto_resume", **STOCK)
    capsys.readouterr()
    train("--auto_resume", **{**STOCK, "train:total_iter": 5})
    printed = capsys.readouterr().out
    assert "Step 4 is passed over: checkpoint: " in printed
    assert "net_g_3.pth: expected finite numbers in params." in printed
    assert "2.state" in printed.split("The training goes on from ")[1].splitlines()[0]
    assert load(folder / "training_states/5.state")["iter"] == 5
    assert len(list(folder.glob("train_*.log"))) == 2  # in one second, or nearly
    assert files(tmp_path / "experiments") == ["demo_pcl_edsr"]  # neither moved away nor locked any more
    for state in (folder / "training_states").glob("*.state"):
        state.write_bytes(b"")
    with pytest.raises(DataError, match="expected a whole checkpoint to go on from, got damaged ones alone"):
        train("--auto_resume", **STOCK)


@pytest.mark.parametrize("methods", [True, False])
def test_nan_in_the_pixel_loss_is_named_and_not_saved(
    methods: bool, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = import_basicsr("basicsr.losses.basic_loss").L1Loss
    forward, calls = loss.forward, []

    def third_is_nan(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return forward(self, *arguments, **options) * (torch.nan if len(calls) == 3 else 1)

    monkeypatch.setattr(loss, "forward", third_is_nan)
    with pytest.raises(NonFiniteError, match=r"l_pix at step 3: expected a finite number, got nan"):
        train(**{**({} if methods else STOCK), "train:total_iter": 5})
    saved = files(tmp_path / "experiments/demo_pcl_edsr/models")
    assert [name for name in saved if name.startswith("net_g")] == ["net_g_1.pth", "net_g_2.pth"]


def test_a_checkpoint_that_is_not_finite_is_not_saved(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although no loss of a step has shown it."""
    base = import_basicsr("basicsr.models.sr_model").SRModel
    optimize = base.optimize_parameters

    def and_spoil(self: Any, current_iter: int) -> None:
        optimize(self, current_iter)
        if current_iter == 2:
            with torch.no_grad():
                next(self.net_g.parameters()).view(-1)[0] = torch.nan

    monkeypatch.setattr(base, "optimize_parameters", and_spoil)
    with pytest.raises(NonFiniteError, match=r"net_g_2.pth: .*params\."):
        train(**STOCK)
    assert files(tmp_path / "experiments/demo_pcl_edsr/models") == ["net_g_1.pth"]
    assert files(tmp_path / "experiments/demo_pcl_edsr/training_states") == ["1.state"]


@pytest.mark.parametrize("methods", [True, False])
def test_a_full_disk_ends_the_training(
    methods: bool, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_basicsr("basicsr.models.base_model").time, "sleep", lambda seconds: None)
    options = {**({} if methods else STOCK), "network_g:num_feat": 64}
    message = r"(net_g|pcl_embedding)_1\.pth could not be written.* MiB are free on its disk"
    with small_disk(300_000), pytest.raises(SaveError, match=message):  # enough for the log
        train(**options)
    assert files(tmp_path / "experiments/demo_pcl_edsr/models") == []


def test_a_training_without_a_step_saves_nothing() -> None:
    model = import_basicsr("basicsr.models.base_model").BaseModel({"num_gpu": 0, "is_train": True})
    with pytest.raises(DataError, match="The training made no step"):
        with_proven_saves(model).save_network(nn.Conv2d(1, 1, 1), "net_g", -1)


def test_stamps_of_logs_only_rise(tmp_path: Path) -> None:
    opt = {"name": "run", "path": {"experiments_root": str(tmp_path / "experiments/run")}}
    log = tmp_path / "experiments/run" / f"train_run_{folders.free_stamp(opt)}.log"
    log.parent.mkdir(parents=True)
    log.touch()
    assert log.name < f"train_run_{folders.free_stamp(opt)}.log"
    (log.parent / "train_run_20991231_235959.log").touch()  # by a clock that was set back since
    assert folders.free_stamp(opt) == "21000101_000000"
    (tmp_path / "tb_logger/run_archived_21000101_000000").mkdir(parents=True)
    assert folders.free_stamp(opt) == "21000101_000001"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a kill of a process ends its children on Linux alone")
def test_a_killed_starter_takes_its_training_with_it(tmp_path: Path, project: Path) -> None:
    """As `demo` and `study` start theirs; the lock of the folder goes with both."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from contrastive_sr.hosts import launch\n"
        "sys.executable = str(Path('python').resolve())\n"  # instead of a training, which takes long to begin
        "with launch.alone(Path('.'), 'demo'):\n"
        "    process = launch.start_training(Path('a.yml'), '', folder=Path('.'))\n"
        "    print(process.pid, flush=True)\n"
        "    process.wait()\n"
    )
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "python").chmod(0o755)
    starter = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    training = Path("/proc", starter.stdout.readline().strip())
    assert training.exists()
    with pytest.raises(BlockingIOError), locked(tmp_path / ".lock"):
        pass
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    with locked(tmp_path / ".lock"):
        pass
    deadline = time.monotonic() + 60
    while training.exists() and "\nState:\tZ" not in (training / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
