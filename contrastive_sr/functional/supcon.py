"""Contrast with several positives, which are in the denominator too: SupCon, and with one positive SimCLR."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr._checks import check_number, check_shape, describe
from contrastive_sr.errors import DataError
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce
from contrastive_sr.functional.similarity import unit_vectors


def supcon(
    anchors: Tensor,
    candidates: Tensor,
    positive: Tensor,
    same: Tensor,
    temperature: float = 0.1,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Supervised contrastive loss, :math:`\mathcal{L}^{sup}_{out}` (Khosla et al., NeurIPS 2020, eq. 2).

    .. math:: \mathcal{L}_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log
        \frac{\exp(a_i \cdot c_p / \tau)}{\sum_{k \in A(i)} \exp(a_i \cdot c_k / \tau)}

    P(i) are the positives of anchor i and A(i) all candidates but the anchor itself. With one positive per anchor it is
    SimCLR's NT-Xent (Chen et al., ICML 2020, eq. 1). The vectors are normalised. An anchor without positives counts as
    0, with a zero gradient. Half precision is computed in float32. Differentiable twice.

    Args:
        anchors: (N, D) vectors.
        candidates: (K, D) vectors, in which the anchors may be contained.
        positive: (N, K) boolean, true where a candidate is a positive of an anchor.
        same: (N, K) boolean, true where a candidate is the anchor itself, which is never a positive.
        temperature: tau, above 0; the paper's is 0.1.
        reduction: over the anchors: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or (N,) with ``reduction="none"``.

    Raises:
        DataError: shapes that do not fit each other, or masks that are not boolean.
        ConfigError: a temperature of 0 or less, or an unknown reduction.

    Example:
        >>> views = torch.eye(4)[[0, 1, 0, 1]]  # two views of two images
        >>> pairs = torch.eye(4, dtype=torch.bool)[[2, 3, 0, 1]]
        >>> supcon(views, views, pairs, torch.eye(4, dtype=torch.bool), temperature=1.0)  # -log(e / (e + 2))
        tensor(0.5514)
    """
    check_number(temperature, "supcon(temperature)", above=0)
    check_shape(anchors, ("N", "D"), "supcon(anchors)")
    check_shape(candidates, ("K", anchors.shape[1]), "supcon(candidates)")
    for mask, name in ((positive, "positive"), (same, "same")):
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (len(anchors), len(candidates)):
            raise DataError(
                f"supcon({name}): expected a boolean tensor ({len(anchors)}, {len(candidates)}), got {describe(mask)}."
            )
    return reduce(supcon_values(anchors, candidates, positive & ~same, same, temperature), reduction)


def supcon_values(anchors: Tensor, candidates: Tensor, positive: Tensor, same: Tensor, temperature: float) -> Tensor:
    """:func:`supcon` of each anchor, (N,), without checks; N may be 0."""
    with torch.autocast(anchors.device.type, enabled=False):  # exp(1 / tau) in half precision may be infinite
        a, c = unit_vectors(at_least_float32(anchors)), unit_vectors(at_least_float32(candidates))
        dtype = torch.promote_types(a.dtype, c.dtype)
        logits = (a.to(dtype) @ c.to(dtype).T / temperature).masked_fill(same, float("-inf"))
        gaps = torch.where(positive, torch.logsumexp(logits, dim=1, keepdim=True) - logits, 0.0)
        return gaps.sum(1) / positive.sum(1).clamp_min(1)
