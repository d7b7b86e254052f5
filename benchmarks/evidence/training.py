"""What is trained and measured, whatever the study: an arm goes on from step to step, and can be saved."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.evidence.images import SCALE
from benchmarks.evidence.ledger import Row
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.methods import Method, Methods

Batches = Callable[[int], dict[str, Tensor]]
"""The batch of a step, by its number."""
Measure = Callable[[nn.Module], dict[str, float]]
"""The figures of a network in eval mode, by name."""


def machine(device: torch.device) -> str:
    """Torch and the processor, in words."""
    return f"torch {torch.__version__}, " + (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    )


def words(arguments: Mapping[str, Any]) -> str:
    """Arguments for a person."""
    return "(" + ", ".join(f"{name} {value}" for name, value in arguments.items()) + ")"


def fixed(size: Any) -> dict[str, Any]:
    """What of a size a folder of results must keep: more seeds or fewer change nothing of what is there."""
    return {key: value for key, value in asdict(size).items() if key != "seeds"}


class Training:
    """One arm from one seed: makes steps, is measured, and can be saved and loaded.

    Args:
        net: what is of use afterwards.
        batches: what a step sees; the arms of a part share them.
        measure_net: gives the figures.
    """

    def __init__(self, net: nn.Module, batches: Batches, measure_net: Measure) -> None:
        self.net, self.batches, self.measure_net = net, batches, measure_net
        self.step = 0
        self.seconds = 0.0
        self.warmup = 0

    def advance(self) -> None:
        """Make one step."""
        self.step += 1
        # so that arms with a warm-up and without see the same from then on
        self.train_on(self.batches(self.step - self.warmup))

    def train_on(self, batch: dict[str, Tensor]) -> None:
        """What a step does with its batch."""
        raise NotImplementedError

    def tested(self) -> nn.Module:
        """The network that is measured."""
        return self.net

    def measure(self) -> dict[str, float]:
        """The figures, by name."""
        net = self.tested()
        training = net.training
        net.eval()
        figures = self.measure_net(net)
        net.train(training)
        return figures

    def parts(self) -> dict[str, Any]:
        """What is saved beside the network: by name, what has ``state_dict()``."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs; the network's weights are where loaders of checkpoints look for them."""
        parts = {name: part.state_dict() for name, part in self.parts().items()}
        return {"params": self.net.state_dict(), "parts": parts, "step": self.step, "seconds": self.seconds}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was called."""
        self.net.load_state_dict(state["params"])
        for name, part in self.parts().items():
            part.load_state_dict(state["parts"][name])
        self.step, self.seconds = state["step"], state["seconds"]


class SRTraining(Training):
    """An SR network on L1, and on a method's terms if there is one; averaged weights are measured.

    Args:
        net: the SR network.
        method: what is added, or None.
        batches: what a step sees; the arms of a part share them.
        measure_net: gives the figures.
        rate: learning rate of Adam.
        average: decay of the averaged weights.
        device: where it is trained.
        pixel_weight: of L1.
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method | None,
        batches: Batches,
        measure_net: Measure,
        rate: float,
        average: float,
        device: torch.device,
        pixel_weight: float = 1.0,
    ) -> None:
        super().__init__(net.to(device), batches, measure_net)
        self.methods, self.pixel_weight = Methods([] if method is None else [method]), pixel_weight
        self.average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(average))
        self.optimizers = {"optimizer": torch.optim.Adam(self.net.parameters(), lr=rate)}
        self.methods.attach(self.net)
        self.methods.to(device)
        self.warmup = 0 if method is None else method.warmup_steps
        if self.methods.trainable:
            own = [p for p in self.methods.parameters() if p.requires_grad]
            self.optimizers["method_optimizer"] = torch.optim.Adam(own, lr=rate)

    def train_on(self, batch: dict[str, Tensor]) -> None:
        batch = self.methods.run(self.net, batch)
        auxiliary = self.methods.auxiliary_losses(batch)
        if auxiliary:
            self._descend("method_optimizer", torch.stack(list(auxiliary.values())).sum())
        if self.methods.warming_up:  # the pixel loss rests
            loss = self.methods.sr_losses(batch).loss
        else:
            pixel_loss = self.pixel_weight * F.l1_loss(batch["sr"], batch["hr"])
            loss = pixel_loss + self.methods.sr_losses(batch, pixel_loss).loss
        self._descend("optimizer", loss)
        self.average.update_parameters(self.net)

    def _descend(self, optimizer: str, loss: Tensor) -> None:
        self.optimizers[optimizer].zero_grad()
        loss.backward()
        self.optimizers[optimizer].step()

    def tested(self) -> nn.Module:
        """The averaged weights."""
        return self.average.module

    def parts(self) -> dict[str, Any]:
        return {"average": self.average, **self.optimizers, "methods": self.methods}


class Bicubic(nn.Module):
    """Bicubic enlargement with MATLAB's a = -0.5, which is what torch takes where ``antialias`` is asked for."""

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, 3, h * scale, w * scale)."""
        return F.interpolate(lr, scale_factor=SCALE, mode="bicubic", antialias=True)


@dataclass(frozen=True)
class Part:
    """Arms that are compared.

    Attributes:
        arms: what is trained, by name.
        reference: what needs no training: it is measured once, at step 0.
        seeds: how many.
        first: the first step at which is measured; then at twice as many, and so on.
        setting: the network and the batch, in words.
        build: an arm from a seed at its first step; the network's weights depend on the seed alone.
        measure_reference: the figures of the reference.
        crops: pictures of some test images, by their names: what a network makes of them, or without one how they are.
            None: none are kept.
    """

    arms: tuple[str, ...]
    reference: str
    seeds: int
    first: int
    setting: str
    build: Callable[[str, int], Training]
    measure_reference: Callable[[], dict[str, float]]
    crops: Callable[[nn.Module | None], Mapping[str, UInt8Image]] | None = None


@dataclass(frozen=True)
class Study:
    """Parts on one set of images.

    Attributes:
        parts: by name.
        data: the images, in words.
        note: what a person has to know of them at the start.
        settings: what a folder of results must not be gone on with in another way, by name.
        device: where it is trained.
    """

    parts: Mapping[str, Part]
    data: str
    note: str
    settings: Mapping[str, Any]
    device: torch.device


class Report(Protocol):
    """Makes tables and plots of a study's CSV alone."""

    def tables(self, rows: Sequence[Row]) -> Iterator[Table | str]:
        """What is to be printed, part by part: tables, and lines with what they were measured on."""

    def save_plots(self, rows: Sequence[Row], out: Path) -> list[Path]:
        """Draws a picture for each part that has something to show; returns the files."""
