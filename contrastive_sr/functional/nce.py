"""Noise-contrastive estimation over given similarities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr._checks import check_number, check_shape
from contrastive_sr.errors import DataError
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce


def one_against_rest(positive: Tensor, rest: Tensor) -> Tensor:
    """``-log(e^p / (e^p + e^r))``, exact also close to 0; r is the logsumexp of the negatives, -inf without any."""
    return F.softplus(rest - positive, threshold=50.0)


def multi_positive_nce(
    positive_similarity: Tensor, negative_similarity: Tensor, temperature: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""One softmax per positive, that positive against all negatives (PCL-SR eq. 8).

    .. math:: \mathcal{L} = \frac{1}{P} \sum_{j=1}^{P}
        -\log \frac{\exp(p_j/\tau)}{\exp(p_j/\tau) + \sum_{k=1}^{N} \exp(n_k/\tau)}

    The paper's eq. 3 puts a different positive into the denominator, unlike eq. 8; this is eq. 8. It is not SupCon
    either, whose denominator contains all positives. With cosines and temperature 1 the loss stays near log(1 + N).
    Half precision is computed in float32. Differentiable twice.

    Args:
        positive_similarity: (B, P) similarities of each anchor to its positives.
        negative_similarity: (B, N) similarities of each anchor to its negatives.
        temperature: tau, above 0. The paper gives no value; 1 is what its experiments imply.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``. The mean over positives is always taken.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        DataError: other shapes, or no positives or no negatives.
        ConfigError: a temperature of 0 or less, or an unknown reduction.

    Example:
        >>> multi_positive_nce(torch.zeros(2, 3), torch.zeros(2, 4))  # log 5
        tensor(1.6094)
    """
    name = "multi_positive_nce"
    check_number(temperature, f"{name}(temperature)", above=0)
    check_shape(positive_similarity, ("B", "P"), f"{name}(positive_similarity)")
    check_shape(negative_similarity, ("B", "N"), f"{name}(negative_similarity)")
    if positive_similarity.shape[0] != negative_similarity.shape[0]:
        raise DataError(
            f"{name}: expected one batch size, got {positive_similarity.shape[0]} rows of positives "
            f"and {negative_similarity.shape[0]} of negatives."
        )
    positive = at_least_float32(positive_similarity) / temperature
    negative = at_least_float32(negative_similarity) / temperature
    values = one_against_rest(positive, torch.logsumexp(negative, dim=1, keepdim=True)).mean(1)
    return reduce(values, reduction)
