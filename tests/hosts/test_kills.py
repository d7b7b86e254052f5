"""Trainings that are killed at random moments, again and again: they go on, and leave no file that cannot be read."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import mmagic_helpers as helpers
import pytest
import torch
from forked import start_python

import contrastive_sr.hosts.mmagic  # noqa: F401 - so that torch.load knows MMEngine's log history
from tests.hosts.basicsr_options import load, write_options

COMMAND = ["-m", "contrastive_sr.cli", "train"]
# Networks so small that a good part of the time goes into checkpoints.
TINY_BASICSR = {
    "network_g:num_feat": 4,
    "network_g:num_block": 1,
    "methods": [{"type": "PCL", "every": 1, "loss_share": 0.05}],
    "logger:save_checkpoint_freq": 1,
    "logger:print_freq": 1000,
    "logger:use_tb_logger": False,
    "val:val_freq": 1_000_000,
}
TINY_MMAGIC = """
model = dict(generator=dict(mid_channels=4, num_blocks=1))
default_hooks["logger"] = dict(interval=1000)
default_hooks["checkpoint"].update(max_keep_ckpts=2)
vis_backends = [dict(type="LocalVisBackend")]
"""


class Training:
    """One of the two hosts' trainings, in a folder of its own.

    Args:
        folder: an empty one.
        data: the demo's data.
        host: ``"basicsr"`` or ``"mmagic"``.
    """

    def __init__(self, folder: Path, data: Path, host: str) -> None:
        self.folder, self.data, self.basicsr = folder, data, host == "basicsr"
        work = folder / ("experiments/demo_pcl_edsr" if self.basicsr else "work_dirs/tiny")
        self.states = work / "training_states" if self.basicsr else work
        if not self.basicsr:
            (folder / "datasets").mkdir()
            (folder / "datasets/demo").symlink_to(data)

    def start(self, steps: int, resume: bool) -> ForkServerProcess:
        """Start it or go on, to a number of steps; what it prints goes into a file."""
        if self.basicsr:
            changes = {**TINY_BASICSR, "train:total_iter": steps}
            config = write_options(self.folder, "demo_pcl_edsr", self.data, changes)
        else:
            path = self.folder / "tiny.py"
            config = helpers.write_config(path, "demo_pcl_edsr", steps=steps, save=1, val=10**6, more=TINY_MMAGIC)
        flag = ["--auto_resume" if self.basicsr else "--resume"] if resume else []
        printed = self.folder / "printed.txt"
        printed.unlink(missing_ok=True)
        return start_python([*COMMAND, config.name, *flag], self.folder, helpers.environment(), printed, printed)

    def saved(self) -> int:
        """The step of the newest state or checkpoint; 0 if there is none."""
        pattern = re.compile(r"(\d+)\.state" if self.basicsr else r"iter_(\d+)\.pth")
        names = [path.name for path in self.states.glob("*")] if self.states.is_dir() else []
        return max((int(found[1]) for name in names if (found := pattern.fullmatch(name))), default=0)

    def check_files(self) -> int:
        """Read every file that a checkpoint has; how many there were."""
        files = [
            path
            for end in ("*.pth", "*.state", "*.contrastive")
            for path in self.folder.rglob(end)
            if path.parent.suffix != ".unfinished"
        ]
        for path in files:
            assert torch.load(path, map_location="cpu", weights_only=True), path
        return len(files)

    def tidy(self) -> None:
        """Make room: hundreds of checkpoints, of which the newest are enough."""
        if self.basicsr:
            last = self.saved()
            for path in [*self.states.glob("*.*"), *(self.states.parent / "models").glob("*.pth")]:
                step = int(re.findall(r"\d+", path.stem)[-1])
                if step < last - 1:
                    path.unlink()

    def printed(self) -> str:
        return (self.folder / "printed.txt").read_text(errors="replace")


def kill_again_and_again(training: Training, kills: int, seed: int) -> int:
    """Kill and resume it; how many kills there were before there was anything new to lose.

    Every fourth kill is somewhere between the start of the process and its first new checkpoint, the others up to half
    a second after a new one: among steps of which each saves.
    """
    chance = random.Random(seed)
    needed, early = 1.0, 0
    for number in range(kills):
        before = training.saved()
        started = time.monotonic()
        process = training.start(10**6, resume=number > 0)
        if number % 4 == 3:
            time.sleep(chance.uniform(0, needed))
        else:
            while training.saved() == before:
                assert process.exitcode is None, training.printed()[-4000:]
                time.sleep(0.01)
            needed = time.monotonic() - started
            time.sleep(chance.uniform(0, 0.5))
        assert process.exitcode is None, training.printed()[-4000:]
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        early += training.saved() == before
        training.check_files()
        training.tidy()
    return early


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(2, marks=pytest.mark.timeout(900)),
        pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
    ids="{}_kills".format,
)
@pytest.mark.parametrize(
    "host", [pytest.param("basicsr", marks=pytest.mark.basicsr), pytest.param("mmagic", marks=pytest.mark.mmagic)]
)
def test_a_killed_training_goes_on(host: str, kills: int, demo_data: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, demo_data, host)
    early = kill_again_and_again(training, kills, seed=6)
    last = training.saved()
    assert last >= kills - early
    # what a kill in the midst of a save leaves, whether or not there was one
    (training.states / f".contrastive-sr-{7:016x}.unfinished").write_bytes(b"half a file")
    process = training.start(last + 2, resume=True)
    process.join()
    assert process.exitcode == 0, training.printed()[-4000:]
    assert f"iter: {last}" in training.printed()
    assert training.check_files() > 0
    assert training.saved() == last + 2
    assert not list(training.states.glob("*.unfinished"))
    if host == "basicsr":
        state = load(training.states / f"{last + 2}.state")
        assert state["iter"] == state["methods"]["step.count"] == last + 2
        network = torch.load(training.states.parent / f"models/net_g_{last + 2}.pth", weights_only=True)["params"]
    else:
        state = torch.load(training.states / f"iter_{last + 2}.pth")
        assert state["meta"]["iter"] == last + 2
        assert state["contrastive_sr"]["methods.step.count"] == last + 2
        network = state["state_dict"]
    assert all(value.isfinite().all() for value in network.values())
    shutil.rmtree(tmp_path, ignore_errors=True)
