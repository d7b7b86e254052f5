"""Numbers that a device is still computing, to be read when they have arrived."""

from __future__ import annotations

import torch
from torch import Tensor


class Later:
    """A scalar on its way to the host.

    From a CUDA device it is copied while training goes on: reading it at once would stall the device. Elsewhere it is
    there at once.

    Args:
        scalar: of any device.
    """

    def __init__(self, scalar: Tensor) -> None:
        scalar = scalar.detach()
        self._arrived: torch.cuda.Event | None = None
        self._copy = scalar
        if scalar.device.type == "cuda":
            self._copy = torch.empty_like(scalar, device="cpu", pin_memory=True)
            self._copy.copy_(scalar, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(scalar.device))

    @property
    def is_there(self) -> bool:
        """Whether it can be read without waiting."""
        return self._arrived is None or bool(self._arrived.query())

    def read(self) -> float:
        """The number; waits for it where it has to."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._copy.item())
