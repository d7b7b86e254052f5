"""What every loss returns besides its bare value, and what every method returns to the engine that drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Contrast(NamedTuple):
    """A loss, and what to know about it.

    Attributes:
        loss: the only part with a gradient; a scalar unless a loss has ``reduction="none"``.
        metrics: numbers to log beside it, by name: detached scalars.
        points: the tensors that the loss was computed from, where its gradient is compared with that of the pixel loss.
            None: the SR image.

    Example:
        >>> import torch
        >>> Contrast(torch.tensor(0.5), {"positive_similarity": torch.tensor(0.9)}).metrics["positive_similarity"]
        tensor(0.9000)
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = {}
    points: Sequence[Tensor] | None = None
