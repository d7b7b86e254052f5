"""Small data sets, small configs, and MMagic's own training script as a subprocess."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from forked import run_python
from PIL import Image

import contrastive_sr

ROOT = Path(contrastive_sr.__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

# What makes a shipped demo config as small as a test needs it; everything else in it stays as shipped.
SMALL = """
_base_ = ["{base}"]
train_pipeline = _base_.train_pipeline
train_pipeline[3]["gt_patch_size"] = {patch}
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_iters={steps}, val_interval={val})
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={save}))
param_scheduler = dict(milestones=[{save}])
randomness = dict(seed=0, deterministic=True)
"""

# The same for the demos that make their LR images from HR images.
SMALL_BLIND = """
_base_ = ["{base}"]
train_pipeline = _base_.train_pipeline
for _step in train_pipeline:
    if _step["type"] == "Crop":
        _step["crop_size"] = ({patch}, {patch})
    if _step["type"] == "contrastive_sr.TwoCrops":
        _step["patch_size"] = {patch}
train_dataloader = dict(batch_size=2, dataset=dict(patch_size={patch}, pipeline=train_pipeline))
train_cfg = dict(max_iters={steps}, val_interval={val})
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={save}))
log_processor = dict(window_size=1)
randomness = dict(seed=0, deterministic=True)
"""


def training_script() -> Path:
    spec = importlib.util.find_spec("mmagic")
    return Path(str(spec and spec.origin)).parent / ".mim" / "tools" / "train.py"


def write_pairs(folder: Path, count: int = 4, size: int = 48, scale: int = 4) -> None:
    """Writes smooth random HR images and their bicubic LR images."""
    generator = np.random.default_rng(0)
    for part in ("HR", f"LRx{scale}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        hr = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        hr.save(folder / "HR" / f"{index}.png")
        hr.resize((size // scale, size // scale), Image.Resampling.BICUBIC).save(
            folder / f"LRx{scale}" / f"{index}.png"
        )


def write_demo(folder: Path, size: int = 48) -> None:
    """Writes a data set where and as the demo configs expect it, below `folder`."""
    write_pairs(folder / "datasets/demo/train", 4, size)
    write_pairs(folder / "datasets/demo/val", 1, size)
    for kind in ("blurred", "spatial"):  # of the demos for blind SR
        shutil.copytree(folder / "datasets/demo/val/LRx4", folder / f"datasets/demo/val/LRx4_{kind}")


def write_config(
    path: Path,
    demo: str,
    *,
    steps: int,
    save: int,
    val: int | None = None,
    patch: int = 32,
    more: str = "",
    template: str = SMALL,
) -> Path:
    """Writes a config on top of the shipped `configs/<demo>.py`."""
    base = (CONFIGS / f"{demo}.py").as_posix()
    text = template.format(base=base, steps=steps, save=save, val=val or steps, patch=patch)
    path.write_text(text + more)
    return path


def environment() -> dict[str, str]:
    paths = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(command: list[str], cwd: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=environment(), text=True, capture_output=True, timeout=240)
    return checked(done, check)


def checked(done: subprocess.CompletedProcess[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """A process that has ended well, if that is asked for."""
    if check and done.returncode != 0:
        raise AssertionError(f"{done.args} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def run_own(config: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `contrastive-sr train CONFIG` in the config's folder."""
    command = ["-m", "contrastive_sr.cli", "train", config.name, *arguments]
    return checked(run_python(command, config.parent, environment()), check)


def train(config: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the command that `mim train mmagic CONFIG --gpus 0 --launcher none` runs."""
    command = [training_script(), config.name, "--launcher", "none", *arguments]
    return checked(run_python(command, config.parent, environment()), check)
