"""Finds NaN and infinity without making a GPU wait."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr.errors import NonFiniteError


class FiniteCheck:
    """Watches scalars. On a CPU a bad one is an error at once.

    From a GPU each value is copied while training goes on, and looked at in the next step, or before a checkpoint is
    saved: reading it at once would stall the device.
    """

    def __init__(self) -> None:
        self._watched: list[tuple[str, Tensor, torch.cuda.Event]] = []

    def watch(self, name: str, value: Tensor) -> None:
        """Look at a detached scalar.

        Raises:
            NonFiniteError: it is NaN or infinite (on a CPU).
        """
        if value.device.type != "cuda":
            _require_finite(name, value)
            return
        copy = torch.empty_like(value, device="cpu", pin_memory=True)
        copy.copy_(value, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._watched.append((name, copy, arrived))

    def settle(self) -> None:
        """Look at all values that were copied since the last call.

        Raises:
            NonFiniteError: one of them was NaN or infinite.
        """
        watched, self._watched = self._watched, []
        for name, copy, arrived in watched:
            arrived.synchronize()
            _require_finite(name, copy)


def _require_finite(name: str, value: Tensor) -> None:
    if not torch.isfinite(value).item():
        raise NonFiniteError(
            f"{name}: expected a finite number, got {value.item()}. Lower the learning rates or this term's "
            "loss_weight (or use `loss_share: 0.05`), and resume from the last checkpoint."
        )
