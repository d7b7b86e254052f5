"""A process that fails, dies or stalls: the others end in time, and the error says which one it was."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import failing_ranks
import pytest
import torch
from forked import run_python
from torch.utils.data import DataLoader

from contrastive_sr.cli import app
from contrastive_sr.errors import ConfigError, HostError
from contrastive_sr.hosts import endings

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What three processes said, of which one failed, by the way it did."""
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "tests/helpers")])
    folder = tmp_path_factory.mktemp("failing")
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = run_python([failing_ranks.__file__, folder], folder, environment, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("case", failing_ranks.CASES)
def test_nobody_waits_for_ever_and_the_error_says_which_rank(case: str, ended: dict[str, Any]) -> None:
    said = ended[case]["said"]
    for rank in ("0", "2"):
        assert said[rank].startswith("HostError: Rank 1 has ended, or has not answered for 2 seconds"), said
    if case == "nan":
        assert "NonFiniteError: mean of the SR network's output at SR step 3" in said["1"]
    else:
        assert said["1"] is None


def test_the_command_says_which_rank_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["contrastive-sr", "train", "nowhere.yml"])
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        app.main()
    assert "error (rank 1 of 3): Expected the file nowhere.yml" in capsys.readouterr().err


class Images(torch.utils.data.Dataset[int]):
    """Of which the second ends or stops the process that loads it."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 1:
            os.kill(os.getpid(), self.signal_number)
        return index


@pytest.fixture
def one_process(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Batches by a process of its own, which is ended afterwards."""
    batches = iter(DataLoader(Images(request.param), num_workers=1, timeout=2))
    yield batches
    for process in batches._workers:  # type: ignore[attr-defined]
        process.kill()


@pytest.mark.parametrize(
    ("one_process", "message"),
    [
        (signal.SIGKILL, r"A process that loads images is gone \(Killed\)"),
        (signal.SIGBUS, r"has run out of shared memory; /dev/shm has \d+ MiB free now"),
        (signal.SIGSTOP, r"have given no batch for 1800 seconds\. Is the disk"),
    ],
    indirect=["one_process"],
)
def test_a_process_that_loads_images(one_process: Any, message: str) -> None:
    with pytest.raises(HostError, match=message), endings.losses_in_words():
        list(one_process)


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^other$"), endings.losses_in_words():
        raise RuntimeError("other")
    with pytest.raises(RuntimeError, match=r"^gloo$"), endings.losses_in_words():  # of one process alone
        raise RuntimeError("gloo")


def test_the_waiting_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endings.waiting_time() == 1800
    monkeypatch.setenv(endings.TIMEOUT, "60")
    assert endings.waiting_time() == 60
    for wrong in ("0", "soon"):
        monkeypatch.setenv(endings.TIMEOUT, wrong)
        with pytest.raises(ConfigError, match="CONTRASTIVE_SR_TIMEOUT: expected a number"):
            endings.waiting_time()


def test_a_full_shared_memory_is_named_at_once() -> None:
    endings.check_shared_memory(2**20, 1, "workers")
    with pytest.raises(ConfigError, match=r"workers: 8 processes load batches of .* in /dev/shm, got \d+ MiB"):
        endings.check_shared_memory(2**50, 8, "workers")
