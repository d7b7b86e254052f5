"""Cria-CL's contrast between the values of loss functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import check_number, describe
from contrastive_sr.errors import DataError
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce


def criteria_alignment(
    anchor: Tensor,
    positives: Sequence[Tensor],
    exponent: float = 2.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Pull criteria, which are values of loss functions, to one value (Cria-CL eq. 8).

    .. math:: \mathcal{L}_{align} = S \sum_{i=1}^{N} |c_a - c_i|^{\eta}

    The absolute value is ours: without it an odd exponent has no lower bound. Know what this does before you use it: it
    makes criteria equal, not small. Wherever the anchor is below the positive criteria (at the paper's exponent: below
    their mean) it is raised, that is, made worse, and so is every positive criterion below the anchor. The anchor and
    the positives all get gradients; detach those that should not move. Half precision is computed in float32, in which
    criteria of 1e4 overflow from an exponent of 10 on. Differentiable twice for exponents of 1 and of at least 2.

    Args:
        anchor: the anchor criterion, a scalar or a map, e.g. (B, 1, H, W); 0 or more.
        positives: criteria that are to become equal to the anchor, scalars or maps; all shapes must broadcast with each
            other.
        exponent: eta, at least 1; the paper's is 2.
        mask: S, weights the elements of the map (Fig. 4). None: 1 everywhere.
        reduction: over the elements of the broadcast map: ``"mean"``, ``"sum"`` or ``"none"``. The mean divides by the
            number of elements, not by the sum of the mask.

    Returns:
        A scalar of at least 0, or the map with ``reduction="none"``.

    Raises:
        DataError: no positives, tensors that are empty or not floating-point, or shapes that do not broadcast.
        ConfigError: an exponent below 1, or an unknown reduction.

    Example:
        >>> criteria_alignment(torch.tensor(3.0), [torch.tensor(1.0), torch.tensor(4.0)])  # 4 + 1
        tensor(5.)
    """
    name = "criteria_alignment"
    check_number(exponent, f"{name}(exponent)", at_least=1)
    a, others, weight = _broadcast(anchor, positives, mask, name, "positives")
    difference = a - others
    if exponent % 2:
        difference = difference.abs()  # only where needed: its second derivative is lost where two criteria are equal
    return _weigh(difference.pow(exponent).sum(0), weight, reduction)


def criteria_uniformity(
    anchor: Tensor,
    negatives: Sequence[Tensor],
    t: float = 2.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""A soft minimum of squared sums of criteria, which are values of loss functions (Cria-CL eq. 9).

    .. math:: \mathcal{L}_{unif} = -\tilde{S} \log \sum_{k=1}^{K} \exp\left(-t (c_a + c_k)^2\right)

    The paper says that this repels criteria into a uniform distribution. It repels nothing: criteria are 0 or more,
    and minimising this pulls the anchor and the negative criteria down to 0: of criteria below about
    :math:`1/(2\sqrt{t})` the larger one most, and of a large and a small one the small one alone. Its value without a
    mask lies between :math:`m - \log K` and :math:`m = \min_k t (c_a + c_k)^2`. It is derived from eq. 7, which has
    the opposite sign; eq. 9 and the code in Fig. 4 agree. It is computed with logsumexp: as printed, float32 overflows
    once all sums of two criteria exceed 7.2. Fig. 4 raises to the power t, eq. 9 to the power 2: we square; at the
    paper's t = 2 they are the same. Half precision is computed in float32. Differentiable twice.

    Args:
        anchor: the anchor criterion, a scalar or a map, e.g. (B, 1, H, W); 0 or more.
        negatives: the other criteria, scalars or maps; all shapes must broadcast with each other.
        t: how steeply the exponential falls, above 0; the paper's is 2.
        mask: weights the elements of the map (1 - S in Fig. 4). None: 1 everywhere.
        reduction: over the elements of the broadcast map: ``"mean"``, ``"sum"`` or ``"none"``. The mean divides by the
            number of elements, not by the sum of the mask.

    Returns:
        A scalar of at least -log K, or the map with ``reduction="none"``.

    Raises:
        DataError: no negatives, tensors that are empty or not floating-point, or shapes that do not broadcast.
        ConfigError: t of 0 or less, or an unknown reduction.

    Example:
        >>> criteria_uniformity(torch.tensor(3.0), [torch.tensor(1.0), torch.tensor(4.0)])  # 2 (3 + 1)^2
        tensor(32.)
    """
    name = "criteria_uniformity"
    check_number(t, f"{name}(t)", above=0)
    a, others, weight = _broadcast(anchor, negatives, mask, name, "negatives")
    return _weigh(-torch.logsumexp(-t * (a + others).square(), dim=0), weight, reduction)


def _broadcast(
    anchor: Tensor, criteria: Sequence[Tensor], mask: Tensor | None, name: str, role: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The anchor, the criteria as one stack, and the mask, all of one shape and in at least float32."""
    if not isinstance(criteria, Sequence) or not criteria:
        raise DataError(f"{name}({role}): expected a list of at least one criterion, got {describe(criteria)}.")
    named = {"anchor": anchor, **{f"{role}[{index}]": criterion for index, criterion in enumerate(criteria)}}
    if mask is not None:
        named["mask"] = mask
    for label, x in named.items():
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
            raise DataError(
                f"{name}({label}): expected a non-empty floating-point tensor, a scalar or a map, got {describe(x)}."
            )
    try:
        tensors = torch.broadcast_tensors(*map(at_least_float32, named.values()))
    except RuntimeError:
        shapes = ", ".join(f"{label} {tuple(x.shape)}" for label, x in named.items())
        raise DataError(
            f"{name}: expected shapes that broadcast with each other, got {shapes}. Resize maps to one size, or take "
            "their mean."
        ) from None
    count = len(criteria)
    return tensors[0], torch.stack(tensors[1 : 1 + count]), None if mask is None else tensors[-1]


def _weigh(values: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    return reduce(values if weight is None else values * weight, reduction)
