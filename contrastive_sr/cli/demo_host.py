"""What the demo needs to know about a host, and the parts that do not depend on which one it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from contrastive_sr.evaluation.figures import Series
from contrastive_sr.hosts.logs import PIXEL, RunLog

CURVES = {
    "pixel": PIXEL,
    "contrastive": "pcl_contrastive_raw",
    "positive": "pcl_positive_similarity",
    "negative": "pcl_negative_similarity",
    "psnr": "PSNR",
}
"""The curves: pixel loss, contrastive loss, both similarities, validation PSNR; and what the logs call them."""


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
        """Returns the text of the config: the shipped demo config, with this plan's data, length and losses."""

    def outputs(self, plan: Plan) -> Mapping[str, Path]:
        """Returns where things lie, by what they are: "checkpoints", "log", "TensorBoard events"."""

    def run_folders(self, plan: Plan) -> list[Path]:
        """Returns every folder the host writes for this plan, that of its log first."""

    def network(self, plan: Plan) -> Callable[[Tensor], Tensor]:
        """Returns the host's own stock network with the run's last weights: (B, 3, h, w) to (B, 3, 4h, 4w)."""


def curves_of(log: RunLog) -> dict[str, Series]:
    """Returns (step, value) by name of `CURVES`; a curve that the run has not is left out."""
    logged = {**log.training, **log.validation}
    return {name: logged[key] for name, key in CURVES.items() if key in logged}
