"""The demo: EDSR with L1 and with L1 + PCL from one seed, trained by either host, and compared on photographs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from contrastive_sr.data.demo import SCALE, VAL_PHOTOS
from contrastive_sr.data.images import UInt8Image, as_image, as_tensor
from contrastive_sr.evaluation import psnr_y, ssim_y
from contrastive_sr.evaluation.plots import Panel, Series, save_crops, save_curves, smoothed
from contrastive_sr.hosts.launch import check_ended, mark_finished, start_training
from contrastive_sr.hosts.logs import PIXEL, RunLog, read_run

RUNS = {"l1": ("L1", False), "l1_pcl": ("L1 + PCL", True)}
"""By the name of a run, what it is called in tables, and whether PCL is added."""
# what is shown of each held-out photograph: an eye with fur around it, and the cooling fins of an engine
_CROPS = {"chelsea": (32, 36, 128, 132), "motorcycle_left": (84, 72, 180, 168)}
CURVES = {
    "pixel": PIXEL,
    "contrastive": "pcl_contrastive_raw",
    "positive": "pcl_positive_similarity",
    "negative": "pcl_negative_similarity",
    "psnr": "PSNR",
}
"""What the logs call the curves: pixel loss, contrastive loss, both similarities, validation PSNR."""


@dataclass(frozen=True)
class Plan:
    """One training of the demo.

    Args:
        name: name of the run, and of its folders.
        with_pcl: whether PCL is added to the pixel loss.
        steps: training steps.
        seed: seed of the whole run.
        data: root of the demo data set.
        folder: where the host runs and writes.
    """

    name: str
    with_pcl: bool
    steps: int
    seed: int
    data: Path
    folder: Path

    @property
    def log_interval(self) -> int:
        """Steps between two points of the loss curves."""
        return max(1, self.steps // 50)

    @property
    def validation_interval(self) -> int:
        """Steps between two validations."""
        return max(1, self.steps // 10)

    @property
    def milestones(self) -> list[int]:
        """Steps at which the learning rate is halved."""
        return [self.steps * 6 // 10, self.steps * 85 // 100]


class DemoHost(Protocol):
    """How the demo writes a config for a host, and reads what the host left behind."""

    suffix: str

    def config(self, plan: Plan) -> str:
        """The text of the config: the shipped demo config, with this plan's data, length and losses."""

    def outputs(self, plan: Plan) -> Mapping[str, Path]:
        """Where things lie, by what they are: "checkpoints", "log", "TensorBoard events"."""

    def run_folders(self, plan: Plan) -> list[Path]:
        """Every folder the host writes for this plan, that of its log first."""

    def network(self, plan: Plan) -> Callable[[Tensor], Tensor]:
        """The host's own stock network with the run's last weights: (B, 3, h, w) to (B, 3, 4h, 4w)."""


def curves_of(log: RunLog) -> dict[str, Series]:
    """(step, value) by name of `CURVES`; a curve that the run does not have is left out."""
    logged = {**log.training, **log.validation}
    return {name: logged[key] for name, key in CURVES.items() if key in logged}


def train(config: Path, text: str, label: str) -> None:
    """Run `contrastive-sr train` in a process of its own; its bar is shown, its log goes to a file.

    Args:
        config: the config to write.
        text: its text.
        label: what the training is called in messages.

    Raises:
        HostError: the training failed.
    """
    descriptor = os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)
    try:
        status = start_training(config, text, folder=config.parent, progress=descriptor).wait()
    finally:
        os.close(descriptor)
    check_ended(status, config, label)
    mark_finished(config, text)


def measure(host: DemoHost, plans: Mapping[str, Plan], data: Path, folder: Path, title: str) -> dict[str, Any]:
    """Measure both networks on the held-out photographs, and draw `crops.png` and `curves.png`.

    Args:
        host: of the trainings.
        plans: the trainings, by the names of :data:`RUNS`.
        data: root of the demo data set.
        folder: where the pictures go.
        title: of the curves.

    Returns:
        ``photographs``, ``mean``, ``seconds_per_step`` and ``curves``.
    """
    images = _super_resolve(data, {RUNS[name][0]: host.network(plan) for name, plan in plans.items()})
    scores = _scores(images)
    logs = {RUNS[name][0]: read_run(host.run_folders(plan)[0]) for name, plan in plans.items()}
    curves = {label: curves_of(log) for label, log in logs.items()}
    _draw(folder, images, curves, scores["mean"]["bicubic"]["psnr"], title)
    seconds = {label: log.seconds_per_step for label, log in logs.items()}
    return {**scores, "seconds_per_step": seconds, "curves": curves}


def _super_resolve(data: Path, networks: Mapping[str, Callable[[Tensor], Tensor]]) -> dict[str, dict[str, UInt8Image]]:
    """For each held-out photograph, the images of all columns."""
    from PIL import Image

    images: dict[str, dict[str, UInt8Image]] = {}
    for photo in VAL_PHOTOS:
        name = f"{Path(photo).stem}.png"
        with Image.open(data / "val" / f"LRx{SCALE}" / name) as file:
            lr = file.convert("RGB")
        with Image.open(data / "val" / "HR" / name) as file:
            hr = file.convert("RGB")
        shown = {"bicubic": np.asarray(lr.resize(hr.size, Image.Resampling.BICUBIC))}
        for label, network in networks.items():
            with torch.inference_mode():
                shown[label] = as_image(network(as_tensor(np.asarray(lr))))
        images[Path(photo).stem] = {**shown, "HR": np.asarray(hr)}
    return images


def _scores(images: Mapping[str, Mapping[str, UInt8Image]]) -> dict[str, Any]:
    photographs = {
        name: {
            label: {"psnr": psnr_y(image, columns["HR"], SCALE), "ssim": ssim_y(image, columns["HR"], SCALE)}
            for label, image in columns.items()
            if label != "HR"
        }
        for name, columns in images.items()
    }
    labels = next(iter(photographs.values())).keys()
    mean = {
        label: {
            metric: sum(scores[label][metric] for scores in photographs.values()) / len(photographs)
            for metric in ("psnr", "ssim")
        }
        for label in labels
    }
    return {"photographs": photographs, "mean": mean}


def device() -> str:
    """What trains, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} x {platform.machine()}"


def _draw(
    folder: Path, images: Mapping[str, Mapping[str, UInt8Image]], curves: Mapping[str, Any], bicubic: float, title: str
) -> None:
    save_crops(folder / "crops.png", [(name, box, images[name]) for name, box in _CROPS.items()], "HR")
    first, second = (label for label, _ in RUNS.values())
    colours = {first: 0, second: 1, "positive": 2, "negative": 5, f"{second}, unweighted": 1}
    pcl = curves[second]
    panels = [
        Panel(
            "pixel loss (L1)",
            {label: smoothed(run["pixel"], 5) for label, run in curves.items()},
            colours=colours,
            overlap=True,
        ),
        Panel("contrastive loss", {f"{second}, unweighted": pcl["contrastive"]}, colours=colours),
        Panel(
            "similarity of SR with its samples",
            {"positive": pcl["positive"], "negative": pcl["negative"]},
            colours=colours,
        ),
        Panel(
            "validation PSNR on Y, dB",
            {label: run["psnr"] for label, run in curves.items()},
            levels={"bicubic": bicubic},
            colours=colours,
            overlap=True,
        ),
    ]
    save_curves(folder / "curves.png", panels, title)


def verdict(pixel: float, contrastive: float, steps: int) -> str:
    """One sentence on the difference between PSNR with L1 and PSNR with L1 + PCL, in dB.

    Example:
        >>> print(verdict(27.0, 27.2, 600))
        L1 + PCL against L1: +0.20 dB, one run of 600 steps each. Other seeds (--seed) show how far chance goes.
    """
    difference = round(contrastive - pixel, 2) + 0.0  # no negative zero
    return (
        f"L1 + PCL against L1: {difference:+.2f} dB, one run of {steps} steps each. "
        "Other seeds (--seed) show how far chance goes."
    )
