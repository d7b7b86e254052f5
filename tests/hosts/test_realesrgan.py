"""Real-ESRGAN as it is installed, trained by its own ``realesrgan/train.py``, with methods in its steps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.basicsr]

from contrastive_sr.hosts.basicsr.host import import_basicsr  # noqa: E402
from tests.hosts.basicsr_options import PROJECT, load, write_options  # noqa: E402
from tests.hosts.real_esrgan import GAN, ON_THE_FLY, hr_images  # noqa: E402

NETWORK = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
TRAIN = """
import runpy, sys
from real_esrgan import fit_to_cpu
fit_to_cpu(setattr)
sys.argv = ["realesrgan/train.py", *sys.argv[1:]]
runpy.run_path("realesrgan/train.py", run_name="__main__")
"""


@pytest.fixture
def train(demo_data: Path, tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    """Train for four steps, in a folder as Real-ESRGAN's repository is; every number that was printed."""
    package = Path(import_basicsr("realesrgan").__file__ or "").parent
    shutil.copytree(package, tmp_path / "realesrgan", ignore=shutil.ignore_patterns("__pycache__"))

    def run(model: str, *arguments: str, **changes: Any) -> list[dict[str, str]]:
        options = {
            "name": "run",
            "model_type": model,
            "network_g": NETWORK,
            "datasets:train": hr_images(demo_data / "train/HR", tmp_path),
            "train:total_iter": 4,
            "val:val_freq": 4,
            "val:save_img": False,
            "logger:print_freq": 1,
            "logger:save_checkpoint_freq": 2,
            **ON_THE_FLY,
            **(GAN if "GAN" in model else {}),
            **changes,
        }
        path = write_options(tmp_path, "demo_pcl_edsr", demo_data, options)
        folders = (tmp_path, PROJECT, PROJECT / "tests" / "hosts")
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, "-opt", path, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        logs = [dict(re.findall(r"(\w+): (-?\d\.\d{4}e[+-]\d+)", line)) for line in done.stderr.splitlines()]
        return [log for log in logs if log] + [dict(re.findall(r"# (\w+): ([\d.]+)", done.stderr))]

    return run


@pytest.mark.parametrize("model", [pytest.param("RealESRNetModel", marks=pytest.mark.long), "RealESRGANModel"])
def test_the_step_is_real_esrgans(model: str, train: Callable[..., list[dict[str, str]]], tmp_path: Path) -> None:
    """With a weight of 0 every number is that of the stock training; with a share the training goes on after a stop."""
    stock = train(model, methods=None, **{"train:optim_methods": None})
    (tmp_path / "experiments/run").rename(tmp_path / "stock")
    method = {"type": "PCL", "every": 1, "loss_weight": 0.0}
    ours = train(f"Contrastive{model}", methods=[method])
    assert len(stock) == len(ours) == 5
    assert {"l_g_gan", "l_d_real"} <= set(stock[0]) if "GAN" in model else "l_pix" in stock[0]
    for before, now in zip(stock, ours, strict=True):
        assert {key: now[key] for key in before} == before
    networks = [load(folder / "models/net_g_4.pth") for folder in (tmp_path / "stock", tmp_path / "experiments/run")]
    for key in ("params", "params_ema"):
        assert all(torch.equal(value, networks[1][key][name]) for name, value in networks[0][key].items())
    (tmp_path / "experiments/run").rename(tmp_path / "zero")

    shared = {"methods": [{**method, "loss_share": 0.2}], "train:total_iter": 2}
    del shared["methods"][0]["loss_weight"]  # type: ignore[index]
    train(f"Contrastive{model}", **shared)
    resumed = train(f"Contrastive{model}", "--auto_resume", **{**shared, "train:total_iter": 4})
    assert float(resumed[0]["pcl_contrastive_share"]) == pytest.approx(0.2, rel=0.5)
    assert load(tmp_path / "experiments/run/training_states/4.state")["methods"]["step.count"] == 4
