"""The difference of pixels."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from contrastive_sr._checks import describe
from contrastive_sr.criteria.base import CRITERIA, Criterion, check_images
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.precision import at_least_float32

Norm = Literal["l1", "l2"]


@CRITERIA.register
class Pixel(Criterion):
    """Difference of the pixels, as a mean over the colours: Cria-CL's anchor.

    The paper mentions an L1 pixel loss in its text and a Euclidean norm at eq. 7. Here ``"l2"`` is the square of the
    difference: the norm itself has no gradient where both images are equal.

    Args:
        norm: ``"l1"`` or ``"l2"``.

    Raises:
        ConfigError: any other norm.

    Example:
        >>> import torch
        >>> Pixel()(torch.full((1, 3, 1, 1), 0.5), torch.zeros(1, 3, 1, 1)).item()
        0.5
    """

    paper = "Cria-CL"

    def __init__(self, *, norm: Norm = "l1") -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ConfigError(f"Pixel(norm): expected one of {', '.join(get_args(Norm))}, got {describe(norm)}.")
        self.norm = norm

    @property
    def label(self) -> str:
        return f"pixel_{self.norm}"

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """A map (B, 1, H, W); see :meth:`Criterion.forward`."""
        check_images(sr, hr, "Pixel")
        difference = at_least_float32(sr) - at_least_float32(hr)
        return (difference.abs() if self.norm == "l1" else difference.square()).mean(1, keepdim=True)
