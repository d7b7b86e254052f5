"""The dual contrastive loss that trains PCL-SR's embedding network."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import describe
from contrastive_sr.errors import DataError
from contrastive_sr.functional.nce import one_against_rest
from contrastive_sr.functional.precision import at_least_float32


def one_against_all(positives: Tensor, negatives: Tensor) -> Tensor:
    """Cross entropy of each positive logit against all negative ones, whatever the shapes: (P,)."""
    rest = torch.logsumexp(at_least_float32(negatives).flatten(), dim=0)
    return one_against_rest(at_least_float32(positives).flatten(), rest)


def check_logits(logits: Tensor, name: str) -> None:
    """Require a non-empty floating tensor.

    Raises:
        DataError: anything else.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.numel() == 0:
        raise DataError(f"{name}: expected a non-empty floating-point tensor of logits, got {describe(logits)}.")


def dual_contrastive_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    r"""Each real logit against all fake ones, and each negated fake logit against all negated real ones (PCL-SR eq. 7).

    .. math:: \mathcal{L} = \mathbb{E}_r\left[-\log \frac{e^{r}}{e^{r} + \sum_f e^{f}}\right]
        + \mathbb{E}_f\left[-\log \frac{e^{-f}}{e^{-f} + \sum_r e^{-r}}\right]

    As printed, eq. 7 lacks the minus sign and, in its denominators, the wavelet operator. Minimising this trains
    the discriminator; swapping the two arguments gives the non-saturating generator form, which PCL-SR
    does not use. Differentiable twice.

    Args:
        real_logits: logits of HR images, any shape: (B,), or (B, K) with K logits per image.
        fake_logits: logits of SR images, any shape.

    Returns:
        A scalar of at least 0.

    Raises:
        DataError: an empty tensor, or one that is not floating-point.

    Example:
        >>> import torch
        >>> dual_contrastive_loss(torch.tensor([9.0, 9.0]), torch.tensor([-9.0, -9.0])) < 1e-6
        tensor(True)
    """
    check_logits(real_logits, "dual_contrastive_loss(real_logits)")
    check_logits(fake_logits, "dual_contrastive_loss(fake_logits)")
    return one_against_all(real_logits, fake_logits).mean() + one_against_all(-fake_logits, -real_logits).mean()
