"""Steps on torch's meta device: nothing is computed, and reading a value is an error.

What a GPU would be sent, and whether it would be waited for, can so be seen without one. Three things are replaced,
which that device does not have: the generators of random draws, autocast, and the copies of values that are read later.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from contrastive_sr.losses import DegradationQueueLoss
from contrastive_sr.methods import Methods, build_methods
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.later import Later

STEADY = 101  # a step after the first ones, at which no share is measured


class Operations(TorchDispatchMode):
    """Counts operations that are no views, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets methods run on the meta device."""
    autocast = torch.autocast
    monkeypatch.setattr(Step, "generator", lambda self, device: None)
    monkeypatch.setattr(Later, "is_there", False)
    monkeypatch.setattr(Later, "read", lambda self: 0.0)
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *args, **kwargs: contextlib.nullcontext() if kind == "meta" else autocast(kind, *args, **kwargs),
    )


def operations_of_a_step(
    make: Callable[[], nn.Module],
    configs: list[Mapping[str, object]],
    *,
    batch: int = 16,
    size: int = 192,
    step: int = STEADY,
    more: Mapping[str, tuple[int, ...]] | None = None,
) -> Counter[str]:
    """What a training step sends to the device: forward and backward passes of network, methods and L1 loss.

    Args:
        make: makes the SR network, for x4.
        configs: of the methods.
        batch: images.
        size: sides of the HR images.
        step: its number; the one before it is run, too, and not counted.
        more: shapes of what else the batch has, by name.
    """
    with torch.device("meta"):
        net = make()
        methods = build_methods(configs) if configs else Methods([])
        methods.attach(net)
        given = {"lr": torch.rand(batch, 3, size // 4, size // 4), "hr": torch.rand(batch, 3, size, size)}
        given |= {name: torch.rand(shape) for name, shape in (more or {}).items()}
        # what is read once, at the beginning or after a state was loaded
        methods._checked = True
        for module in methods.modules():
            if isinstance(module, DegradationQueueLoss):
                module._position = 0, module.queue_size
        for number in (step - 1, step):
            methods.step._value = number
            for parameter in (*net.parameters(), *methods.parameters()):
                parameter.grad = None
            with Operations() as operations:
                _step(net, methods, given)
        return operations.names


def _step(net: nn.Module, methods: Methods, given: Mapping[str, Tensor]) -> None:
    batch = methods.run(net, dict(given))
    auxiliary = methods.auxiliary_losses(batch)
    if auxiliary:
        torch.stack(list(auxiliary.values())).sum().backward()
    pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
    (pixel_loss + methods.sr_losses(batch, pixel_loss).loss).backward()
