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
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contrastive_sr.losses import DegradationQueueLoss
from contrastive_sr.methods import Methods, build_methods
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.later import Later

STEADY = 101  # a step after the first ones, at which no share is measured


class Operations(TorchDispatchMode):
    """Counts operations that are no views, by name; and finds what would wait for the device, or fail on it.

    Attributes:
        names: how often each operation was called.
        mixed: operations on tensors of the CPU and of the device, which a GPU does not take, or copies from one to the
            other: of numbers that were made into a tensor, or to a tensor that is read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.mixed: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names[str(func)] += 1
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and kwargs.get("device") == torch.device("cpu"):
            self.mixed[str(func)] += 1  # where values are read; the device has none
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        output = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, output)) if isinstance(x, Tensor)]
        on_device = [x.is_meta for x in tensors]
        # a number on the CPU may take part in an operation on a GPU
        on_host = [not x.is_meta and x.ndim > 0 for x in tensors]
        if any(on_device) and (any(on_host) or func is torch.ops.aten.lift_fresh.default):
            self.mixed[str(func)] += 1
        return output


class Literals(TorchFunctionMode):
    """Counts tensors that are made of Python's numbers for the device: each is a copy that would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and output.is_meta:
            self.count += 1
        return output


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
    settled(methods)
    # The default device is the CPU's again: a tensor that is made on none in particular would be found.
    for number in (step - 1, step):
        methods.step._value = number
        for parameter in (*net.parameters(), *methods.parameters()):
            parameter.grad = None
        with Literals() as literals, Operations() as operations:
            _step(net, methods, given)
    assert not operations.mixed, operations.mixed
    assert literals.count == 0
    return operations.names


def settled(methods: Methods) -> None:
    """Spare methods what is read once, at the beginning or after a state was loaded."""
    methods._checked = True
    for module in methods.modules():
        if isinstance(module, DegradationQueueLoss):
            module._position = 0, module.queue_size


def _step(net: nn.Module, methods: Methods, given: Mapping[str, Tensor]) -> None:
    batch = methods.run(net, dict(given))
    auxiliary = methods.auxiliary_losses(batch)
    if auxiliary:
        torch.stack(list(auxiliary.values())).sum().backward()
    pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
    (pixel_loss + methods.sr_losses(batch, pixel_loss).loss).backward()
