"""Fixtures that tests of several parts share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forked import run_python
from quicker import quicker

from contrastive_sr.data.demo import prepare_demo_data

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    quicker()


DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def _no_rank() -> Iterator[None]:
    """MMagic's `tools/train.py` leaves one in the environment, which launchers in later tests would take for theirs."""
    yield
    os.environ.pop("LOCAL_RANK", None)


@pytest.fixture(scope="session", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Each kind of device that there is: a test that asks for it runs on the CPU and on a GPU."""
    return request.param


@pytest.fixture(scope="session", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The precisions in which everything is computed; half precision is never computed in."""
    return request.param


@pytest.fixture(scope="session")
def project() -> Path:
    """The source folder."""
    return PROJECT


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `contrastive-sr prepare demo`; read only, shared by all tests of a process."""
    return prepare_demo_data(tmp_path_factory.mktemp("data") / "demo").folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as `pip install` gets it, built here."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(PROJECT)]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def command_line(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `contrastive-sr ARGUMENTS` in an empty folder, as a process of its own."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200", **environment}
        return run_python(["-m", "contrastive_sr.cli", *arguments], tmp_path, own)

    return run
