"""The conditional contrast of SR features: CRL-SR eq. 4 to 6 (arXiv 2107.00708)."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_number
from contrastive_sr.functional.info_nce import check_vectors
from contrastive_sr.functional.logsumexp import pair_statistics
from contrastive_sr.functional.nce import one_against_rest
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, reduce
from contrastive_sr.functional.similarity import unit_vectors

Variant = Literal["negative", "tempered", "paper"]


def srnce(
    hr: Tensor,
    sr: Tensor,
    lr: Tensor,
    temperature: float = 0.07,
    variant: Variant = "negative",
    *,
    reduction: Reduction = "mean",
    penalty: bool = True,
    detach_hr: bool = True,
    detach_lr: bool = True,
    normalize: bool = True,
) -> Tensor:
    r"""Pull SR features to the HR features at their place, conditioned on the LR features there (CRL-SR eq. 6).

    .. math:: \mathcal{L}_m = -\log \frac{e^{(h_m \cdot s_m - p_m)/\tau} + e^{(1 - s_m \cdot l_m - p_m)/\tau}}
        {e^{(h_m \cdot s_m - p_m)/\tau} + e^{(1 - s_m \cdot l_m - p_m)/\tau} + \sum_{j \neq m} e^{h_m \cdot s_j/\tau}},
        \quad p_m = 1 - h_m \cdot l_m

    The variants:

    - ``"negative"``, the default: :math:`l_m` is one more negative,
      :math:`-\log \frac{e^{(h_m \cdot s_m - p_m)/\tau}}{e^{(h_m \cdot s_m - p_m)/\tau} + e^{s_m \cdot l_m/\tau}
      + \sum_{j \neq m} e^{h_m \cdot s_j/\tau}}`. Not in the paper, but what its text describes: optimised alone, SR
      features end near the HR ones from every start. Use this one unless you want to reproduce the paper.
    - ``"tempered"``: eq. 6 with tau in every exponent. SR features end near the HR ones from a warm start (near HR or
      near LR), and far from both from a random start. So train with a pixel loss alone first.
    - ``"paper"``: eq. 6 as printed, without a temperature (the argument is not used). The numerator adds pull and push,
      so that either can make it large. The push wins, as it can reach 2 and the pull 1: SR features end opposite to the
      LR ones, with a negative cosine to HR, from every start. For comparison only.

    The penalty is always detached, since otherwise it would pull HR and LR features together. From 256 vectors on the
    logits are formed tile by tile; for second derivatives and ``torch.compile`` in that case, see
    :func:`~contrastive_sr.functional.info_nce`. Half precision is computed in float32.

    Args:
        hr: (..., M, D) features of the HR image, the anchors; for maps see
            :func:`~contrastive_sr.functional.info_nce`. Each leading index, an image, is contrasted on its own.
        sr: (..., M, D) features of the SR image.
        lr: (..., M, D) features of the enlarged LR image, the condition.
        temperature: tau, above 0; 0.07 is the paper's value for its other losses.
        variant: ``"negative"``, ``"tempered"`` or ``"paper"``, see above.
        reduction: over images and vectors: ``"mean"``, ``"sum"`` or ``"none"``.
        penalty: whether to subtract :math:`p_m`; without it, ``"paper"`` is eq. 4.
        detach_hr: whether the HR features get no gradient.
        detach_lr: whether the LR features get no gradient.
        normalize: whether to compare unit vectors, as the paper does.

    Returns:
        A scalar of at least 0, or (..., M) with ``reduction="none"``.

    Raises:
        DataError: tensors that are not floating, not (..., M, D), of different shapes, or empty.
        ConfigError: a temperature of 0 or less, an unknown variant or reduction.

    Example:
        >>> hr, lr = torch.eye(4), torch.eye(4).flip(0)
        >>> srnce(hr, sr=lr, lr=lr) > srnce(hr, sr=hr, lr=lr)
        tensor(True)
    """
    check_number(temperature, "srnce(temperature)", above=0)
    check_vectors({"hr": hr, "sr": sr, "lr": lr}, "srnce")
    check_variant(variant, "srnce(variant)")
    condition = Condition(temperature, variant, penalty, detach_hr, detach_lr, normalize)
    return reduce(condition.contrast(hr, sr, lr).values, reduction)


def check_variant(variant: str, name: str) -> None:
    """Require one of the variants.

    Raises:
        ConfigError: another name.
    """
    check_choice(variant, get_args(Variant), name)


class ConditionalContrast(NamedTuple):
    """What :meth:`Condition.contrast` returns, each (..., M).

    Attributes:
        values: the loss of each anchor.
        to_hr: similarity of the SR features to the HR features at their place.
        to_lr: similarity of the SR features to the LR features at their place.
    """

    values: Tensor
    to_hr: Tensor
    to_lr: Tensor


class Condition(NamedTuple):
    """The settings of :func:`srnce`."""

    temperature: float
    variant: Variant
    penalty: bool
    detach_hr: bool
    detach_lr: bool
    normalize: bool = True

    def contrast(self, hr: Tensor, sr: Tensor, lr: Tensor) -> ConditionalContrast:
        """The loss of each anchor.

        Args:
            hr: (..., M, D) features of the HR image, the anchors.
            sr: (..., K, D) features of the SR image, K of at least M. The first M belong to the anchors, the others are
                negatives only.
            lr: (..., M, D) features of the enlarged LR image.
        """
        tau = 1.0 if self.variant == "paper" else self.temperature
        hr = hr.detach() if self.detach_hr else hr
        lr = lr.detach() if self.detach_lr else lr
        hr, sr, lr = (at_least_float32(x) for x in (hr, sr, lr))
        if self.normalize:
            hr, sr, lr = (unit_vectors(x) for x in (hr, sr, lr))
        statistics = pair_statistics(hr, sr, tau, normalize=False, unit=self.normalize)
        to_hr = statistics.positive * tau
        to_lr = (sr[..., : hr.shape[-2], :] * lr).sum(-1)
        margin = 1 - (hr * lr).sum(-1).detach() if self.penalty else 0.0
        pull = (to_hr - margin) / tau
        if self.variant == "negative":
            values = one_against_rest(pull, torch.logaddexp(statistics.rows, to_lr / tau))
        else:
            push = (1 - to_lr - margin) / tau
            values = one_against_rest(torch.logaddexp(pull, push), statistics.rows)
        return ConditionalContrast(values, to_hr, to_lr)
