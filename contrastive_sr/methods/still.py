"""Notices a loss that no longer changes, as happens to a contrast when the training has diverged without a NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr.methods.later import Later

STEPS = 10
"""In a row with exactly the same value. Batches and weights change from step to step, and a live loss with them."""


class Still:
    """Watches one loss.

    Example:
        >>> still = Still()
        >>> [still.is_dead(torch.tensor(2.5)) for _ in range(STEPS + 1)].count(True)
        1
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._equal = torch.zeros(())
        self._calls = 0
        self._later: Later | None = None
        self._said = False

    def is_dead(self, loss: Tensor) -> bool:
        """Whether it has been the same for so long; True once. On a CUDA device that is known some steps later.

        Args:
            loss: the loss of this step, a scalar without a gradient.
        """
        if self._said:
            return False
        if self._last is None:
            self._equal = torch.zeros_like(loss)
        else:
            self._equal = (self._equal + 1) * (loss == self._last)
        self._last = loss
        self._calls += 1
        if self._later is None and self._calls > STEPS:
            self._later = Later(self._equal)
        if self._later is not None and self._later.is_there:
            self._said, self._later = self._later.read() >= STEPS, None
        return self._said
