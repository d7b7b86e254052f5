"""Mixed precision, ``train: amp:``, in a step that stays the trainer's own; imports no host.

The trainer's step calls its networks, ``backward()`` and ``step()`` itself, and knows nothing of precision. So for the
time of a step these are replaced by what does the same in mixed precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from contrastive_sr._checks import describe
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.basicsr.options import PREFIX

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class MixedPrecision:
    """Networks in half precision, in the steps of a trainer.

    The networks are run under autocast, and what they return is float32; so the trainer's losses are computed in
    float32, as the methods' terms are. Weights, gradients and optimizers stay float32. With float16, whose gradients
    would underflow, each loss on which ``backward()`` is called is multiplied by the scale of torch's ``GradScaler``,
    and the optimizers divide by it; a step with gradients that are not finite is left out, and the scale is lowered.
    The methods' own parts learn in float32, outside of this.

    Attributes:
        dtype: ``torch.bfloat16`` or ``torch.float16``.
        scaler: of the gradients; does nothing with bfloat16.

    Args:
        amp: ``"bfloat16"``, ``"float16"``, or True for the first where the device computes with it, else the second.
        device: of the training.

    Raises:
        ConfigError: another value, or a torch without a gradient scaler for this device.

    Example:
        >>> MixedPrecision(True, torch.device("cpu")).dtype
        torch.bfloat16
    """

    def __init__(self, amp: object, device: torch.device) -> None:
        if amp is not True and (not isinstance(amp, str) or amp not in _DTYPES):
            raise ConfigError(
                f"train: amp: expected bfloat16, float16, true (bfloat16 where the device has it, else float16) or "
                f"false, got {describe(amp)}."
            )
        self.dtype = _DTYPES[amp] if isinstance(amp, str) else _fitting(device)
        self._device = device.type
        if self.dtype == torch.float16 and not hasattr(torch.amp, "GradScaler"):
            raise ConfigError(f"train: amp: float16 needs torch 2.3 or newer, got {torch.__version__}. Take bfloat16.")
        self.scaler: torch.amp.GradScaler | None = None
        if self.dtype == torch.float16:
            self.scaler = torch.amp.GradScaler(device.type)

    @contextmanager
    def step(
        self,
        networks: Collection[nn.Module],
        optimizers: Collection[torch.optim.Optimizer],
        losses: Collection[nn.Module] = (),
    ) -> Iterator[None]:
        """Mixed precision in a block of code: one step of the trainer.

        Args:
            networks: what is run in half precision.
            optimizers: whose ``step()`` is called in the block.
            losses: what is called by one of the networks, and is run in float32 all the same.
        """
        stepped: list[torch.optim.Optimizer] = []
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(_replaced(network, "forward", self._in_autocast(network.forward)))
            for loss in losses:
                stack.enter_context(_replaced(loss, "forward", self._in_float32(loss.forward)))
            if self.scaler is not None:
                stack.enter_context(_replaced(Tensor, "backward", _scaled(Tensor.backward, self.scaler)))
                for optimizer in optimizers:
                    step = _unscaling(optimizer, self.scaler, stepped)
                    stack.enter_context(_replaced(optimizer, "step", step))
            yield
        if self.scaler is not None and stepped:
            self.scaler.update()

    def _in_float32(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast(self._device, enabled=False):
                return forward(*args, **kwargs)

        return run

    def _in_autocast(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast(self._device, self.dtype):
                output = forward(*args, **kwargs)
            return tree_map(_widened, output)

        return run


def mixed_precision(amp: object, device: torch.device) -> MixedPrecision | None:
    """What ``train: amp:`` asks for; None for false, or where there is nothing.

    Raises:
        ConfigError: see :class:`MixedPrecision`.
    """
    return None if amp is None or amp is False else MixedPrecision(amp, device)


def check_amp(opt: Mapping[str, Any]) -> None:
    """Refuse mixed precision that a training cannot have.

    Raises:
        ConfigError: see :class:`MixedPrecision`; or the model is BasicSR's own, which would train in float32.
    """
    model, device = opt["model_type"], torch.device("cuda" if opt["num_gpu"] else "cpu")
    if mixed_precision(opt["train"].get("amp"), device) and not model.startswith(PREFIX):
        raise ConfigError(
            f"train: amp: {model} trains in float32. Take `amp:` out, or train with methods: {PREFIX}{model}."
        )


def _fitting(device: torch.device) -> torch.dtype:
    """What the device computes with: GPUs have bfloat16 since compute capability 8.0 (Ampere)."""
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float16 if old else torch.bfloat16


def _widened(x: Any) -> Any:
    # a gradient that is too large for float16 becomes infinite here, and the scaler sees it
    return x.float() if isinstance(x, Tensor) and x.dtype in _DTYPES.values() else x


def _scaled(backward: Callable[..., None], scaler: torch.amp.GradScaler) -> Callable[..., None]:
    @functools.wraps(backward)
    def scaled_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        backward(scaler.scale(loss), *args, **kwargs)

    return scaled_backward


def _unscaling(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, stepped: list[torch.optim.Optimizer]
) -> Callable[[], None]:
    own = optimizer.step

    def step() -> None:
        with _replaced(optimizer, "step", own):  # the one that the scaler calls
            scaler.step(optimizer)
        stepped.append(optimizer)

    return step


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object an attribute of its own for a block of code; afterwards it has what it had."""
    had, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
