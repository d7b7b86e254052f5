"""The wheel in fresh environments of each Python at hand: in the documented order, and in others.

`make test-pythons` runs them, one environment at a time; each has a torch of some gigabytes and is deleted afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.pythons, pytest.mark.timeout(3600)]

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
WITH_HOSTS = PYTHONS[:3]
TRAIN = {
    "basicsr": ("train", "plugins/demo_pcl_edsr.yml", "--force_yml", "train:total_iter=2", "val:val_freq=2"),
    "mmagic": (
        "train",
        "configs/demo_pcl_edsr.py",
        "--cfg-options",
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
    ),
}
BUILD_BASICSR = "pip install --no-build-isolation --no-deps basicsr==1.4.2"


class Environment:
    """A fresh one, and a folder to work in."""

    def __init__(self, folder: Path, python: str) -> None:
        at_hand = shutil.which(f"python{python}")
        # a shim of pyenv's may be there without the Python
        if at_hand is None or subprocess.run([at_hand, "--version"], capture_output=True).returncode:
            pytest.skip(f"no python{python} on the path")
        subprocess.run([at_hand, "-m", "venv", folder / "venv"], check=True)
        self.folder, self.python, self.torch = folder, python, 0
        path = f"{folder / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"
        self._variables = {**os.environ, "PATH": path, "COLUMNS": "200"}
        self._variables.pop("PYTHONPATH", None)

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """As it would be typed; counts how often a torch was installed."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.folder, env=self._variables, capture_output=True, text=True,
        )  # fmt: skip
        self.torch += len(re.findall(r"^Successfully installed .*\btorch-\d", done.stdout, re.MULTILINE))
        return done

    def run(self, command: str) -> str:
        done = self.type(command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def hint(self, *arguments: str) -> str:
        """What our command says to type, when it refuses to run."""
        done = self.type(f"contrastive-sr {' '.join(arguments)}")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return re.split(r"Try: |; `contrastive-sr doctor`", done.stderr.strip())[1]


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    yield Environment(tmp_path, request.param)
    shutil.rmtree(tmp_path / "venv")


def each(*pythons: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("environment", pythons, indirect=True)


@pytest.fixture
def pinned(environment: Environment, project: Path) -> str:
    return f"-c {project}/constraints/py{environment.python}.txt"


@each(*WITH_HOSTS)
def test_basicsr_as_documented(environment: Environment, pinned: str, wheel: Path) -> None:
    environment.run(f'pip install {pinned} "{wheel}[basicsr,demo]"')
    environment.run(BUILD_BASICSR)
    environment.run("pip check")
    environment.run("contrastive-sr configs . && contrastive-sr prepare demo && contrastive-sr doctor --fix")
    environment.run(f"contrastive-sr {' '.join(TRAIN['basicsr'])}")
    assert environment.torch == 1


@each(*WITH_HOSTS)
def test_mmagic_as_documented(environment: Environment, pinned: str, wheel: Path) -> None:
    environment.run(f'pip install {pinned} "{wheel}[mmagic,demo]"')
    environment.run("contrastive-sr configs . && contrastive-sr prepare demo && contrastive-sr doctor")
    environment.run(f"contrastive-sr {' '.join(TRAIN['mmagic'])}")
    assert environment.torch == 1


@each(*WITH_HOSTS)
def test_out_of_order_our_commands_say_what_to_type(environment: Environment, pinned: str, wheel: Path) -> None:
    """The core, then whatever a command asks for, typed as it says."""
    environment.run(f"pip install {pinned} {wheel}")
    environment.run("contrastive-sr configs .")
    environment.run(environment.hint("prepare", "demo"))
    environment.run("contrastive-sr prepare demo")
    for host in ("mmagic", "basicsr"):
        environment.run(environment.hint(*TRAIN[host]))
        environment.run(f"contrastive-sr {' '.join(TRAIN[host])}")
    environment.run(f'pip install {pinned} "contrastive-sr[basicsr]"')  # once more: BasicSR stays
    environment.run("contrastive-sr doctor --fix")
    assert environment.torch == 1


@each("3.13")
def test_where_no_host_installs(environment: Environment, pinned: str, wheel: Path) -> None:
    environment.run(f'pip install {pinned} "{wheel}[basicsr,mmagic,demo,evaluate,plot]"')
    environment.run("pip check")
    environment.run("contrastive-sr configs . && contrastive-sr prepare demo && contrastive-sr doctor")
    for host in TRAIN:
        assert environment.hint(*TRAIN[host]).startswith("Python 3.10 to 3.12")
    images = "datasets/demo/val/HR"
    environment.run(f"contrastive-sr samples {images}/chelsea.png --method pcl")
    environment.run(f"contrastive-sr evaluate bicubic --hr {images} --scale 4 --html report.html")
    assert environment.torch == 1
