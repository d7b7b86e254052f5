"""The projection head that CRL-SR puts between features and contrast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, describe
from contrastive_sr.errors import DataError


class MLPHead(nn.Module):
    r"""Projects feature vectors into the space where they are compared (CRL-SR, section 3.3).

    .. math:: h(x) = W_2 \max(0, W_1 x + b_1) + b_2

    Linear, ReLU, Linear; the hidden layer is as wide as the output. The L2 normalisation that follows in the paper is
    left to the losses, which normalise what they compare. The layers exist from the start, so that an optimizer that is
    made from ``parameters()`` holds them. Differentiable twice.

    Args:
        channels: C, the length of the input vectors.
        dim: the length of the output vectors; the paper takes 256.

    Raises:
        ConfigError: not whole numbers of at least 1.

    Example:
        >>> MLPHead(64, dim=32)(torch.rand(2, 100, 64)).shape
        torch.Size([2, 100, 32])
    """

    def __init__(self, channels: int, *, dim: int = 256) -> None:
        super().__init__()
        self.channels = check_count(channels, "MLPHead(channels)")
        self.dim = check_count(dim, "MLPHead(dim)")
        self.hidden = nn.Linear(channels, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project the vectors of the last dimension.

        Args:
            x: (..., C) floating point, of any value range.

        Returns:
            (..., dim).

        Raises:
            DataError: not vectors of C numbers.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0 or x.shape[-1] != self.channels:
            raise DataError(
                f"MLPHead(x): expected a floating-point tensor (..., {self.channels}), got {describe(x)}. "
                "The head is built for one number of channels; maps (B, C, H, W) need permute(0, 2, 3, 1)."
            )
        projected: Tensor = self.out(torch.relu(self.hidden(x.to(self.hidden.weight.dtype))))
        return projected
