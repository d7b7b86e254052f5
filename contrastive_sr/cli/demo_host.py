"""What the demo needs to know about a host, and the parts that do not depend on which one it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from contrastive_sr.evaluation.figures import Series

CURVES = ("pixel", "contrastive", "positive", "negative", "psnr")
"""Names of the curves: pixel loss, contrastive loss, both similarities, validation PSNR."""


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
        """Returns every folder the host writes for this plan."""

    def curves(self, plan: Plan) -> dict[str, Series]:
        """Returns (step, value) by name of `CURVES`; a curve that the run has not is left out."""

    def seconds_per_step(self, plan: Plan) -> float:
        """Returns the mean over the run, without validation."""

    def network(self, plan: Plan) -> Callable[[Tensor], Tensor]:
        """Returns the host's own stock network with the run's last weights: (B, 3, h, w) to (B, 3, 4h, 4w)."""


def within_run(series: Series, last: int) -> list[tuple[int, float]]:
    """One value a step, none behind `last`: hosts validate once more at the end, under a step that never was."""
    return sorted({min(step, last): value for step, value in series}.items())
