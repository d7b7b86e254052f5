"""What a host does with methods, in the fewest lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.losses import Contrast
from contrastive_sr.methods import Method, Methods, Step

Optimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


def methods_on(net: nn.Module, *methods: Method) -> Methods:
    """The engine with these methods, attached to a network."""
    engine = Methods(methods)
    engine.attach(net)
    return engine


def raw_terms(methods: Methods, batch: dict[str, Tensor]) -> dict[str, Contrast]:
    """The unweighted terms of the only method at this step, which is not counted."""
    (method,) = methods
    return dict(method.terms(batch, step_of(methods)))


def step_of(methods: Methods) -> Step:
    """The step that the only method is at, with its draws."""
    (method,) = methods
    return methods._step(method)


def all_losses(methods: Methods, batch: dict[str, Tensor], pixel_weight: float = 1.0) -> tuple[Tensor, Contrast]:
    """The SR network's loss, without the pixel loss in a warm-up, and what the methods gave."""
    if methods.warming_up:
        contrast = methods.sr_losses(batch)
        return contrast.loss, contrast
    pixel = pixel_weight * F.l1_loss(batch["sr"], batch["hr"])
    contrast = methods.sr_losses(batch, pixel)
    return pixel + contrast.loss, contrast


class Training:
    """A training of an SR network and of the methods' parts.

    Args:
        net: the SR network.
        methods: attached to it.
        optimizer: makes one for the network, and one for the methods where they have parts to train.
        wrap: whether for several processes.
        pixel_weight: of the pixel loss.
    """

    def __init__(
        self,
        net: nn.Module,
        methods: Methods,
        optimizer: Optimizer = partial(torch.optim.Adam, lr=1e-3),  # noqa: B008 - never changed
        wrap: bool = False,
        pixel_weight: float = 1.0,
    ) -> None:
        self.net, self.methods, self.pixel_weight = net, methods, pixel_weight
        self._net: nn.Module = DistributedDataParallel(net) if wrap else net
        self._methods: nn.Module = DistributedDataParallel(methods) if wrap and methods.trainable else methods
        self.optimizers = [optimizer(part.parameters()) for part in (net, methods) if part is net or methods.trainable]
        self.logs: list[dict[str, float]] = []  # auxiliary losses and metrics of each step

    @property
    def parts(self) -> list[nn.Module | torch.optim.Optimizer]:
        """All that has a state."""
        return [self.net, self.methods, *self.optimizers]

    def step(self, batch: dict[str, Tensor]) -> None:
        """One step of both."""
        batch = self.methods.run(self._net, batch)
        auxiliary = self._methods(batch)
        if auxiliary:
            self._minimise(torch.stack(list(auxiliary.values())).sum(), self.optimizers[1])
        loss, contrast = all_losses(self.methods, batch, self.pixel_weight)
        self._minimise(loss, self.optimizers[0])
        self.logs.append({name: value.item() for name, value in {**auxiliary, **contrast.metrics}.items()})

    def _minimise(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def states(self) -> dict[str, Tensor]:
        """Copies of the network's and the methods' tensors."""
        named = {"net": self.net.state_dict(), "methods": self.methods.state_dict()}
        return {f"{part}.{name}": value.clone() for part, state in named.items() for name, value in state.items()}
