"""Cria-CL: "Criteria Comparative Learning for Real-scene Image Super-Resolution" (TCSVT 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_flag, check_number, describe
from contrastive_sr.distributed import sum_over_ranks, world_size
from contrastive_sr.errors import DataError
from contrastive_sr.functional.criteria import criteria_alignment, criteria_uniformity
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.reduction import Reduction, check_reduction
from contrastive_sr.losses.contrast import Contrast

Criteria = Mapping[str, Tensor] | Sequence[Tensor]


class RunningScales(nn.Module):
    """Divides criteria by running means of their sizes: momentum 0.99, over all ranks, in the saved state.

    Args:
        count: how many criteria there are. 0: as many as in the first call.
    """

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.means: Tensor
        self.register_buffer("means", torch.zeros(count))  # 0 until measured

    @torch.no_grad()
    def update(self, criteria: Sequence[Tensor]) -> None:
        """Move the running means on; every rank must make the call."""
        sizes = torch.stack([at_least_float32(criterion).abs().mean() for criterion in criteria]).to(self.means)
        sizes = sum_over_ranks(sizes) / world_size()
        if len(self.means) == 0:
            self.means = torch.zeros_like(sizes)
        if len(self.means) == len(sizes):
            moved = torch.where(self.means > 0, self.means.lerp(sizes, 0.01), sizes)
            # A criterion that is not finite spoils this step, and must not spoil those to come.
            self.means.copy_(torch.where(torch.isfinite(sizes), moved, self.means))

    def forward(self, criteria: Sequence[Tensor]) -> list[Tensor]:
        """The criteria, divided; a criterion that was not measured yet, or was always 0, stays as it is.

        Raises:
            DataError: a different number of criteria than was measured.
        """
        if len(self.means) not in (0, len(criteria)):
            raise DataError(
                f"RunningScales: expected {len(self.means)} criteria, the anchor among them, as in the calls before, "
                f"got {len(criteria)}."
            )
        if len(self.means) == 0:  # eval mode, before anything was measured
            return list(criteria)
        scales = torch.where(self.means > torch.finfo(self.means.dtype).eps, self.means, 1.0)
        return [at_least_float32(c) / scale for c, scale in zip(criteria, scales.unbind(), strict=True)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        saved = state_dict.get(f"{prefix}means")
        if isinstance(saved, Tensor):
            self.means = self.means.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class CriteriaLoss(nn.Module):
    r"""Contrasts the values of loss functions: an anchor criterion with positive and with negative ones.

    .. math:: \mathcal{L} = \lambda_a\, S \sum_i |c_a - c_i^+|^{\eta}
        - \lambda_u\, (1 - S) \log \sum_k \exp\left(-t (c_a + c_k^-)^2\right)

    Cria-CL eq. 8 and 9 with the masks of Fig. 4 and the weights of eq. 11, where each term has its own. Fig. 4 also
    halves the second term; that is ``uniformity_weight=0.005`` here. The terms do not do what their names suggest; see
    :func:`~contrastive_sr.functional.criteria_alignment` (it raises the anchor wherever it is below the positives) and
    :func:`~contrastive_sr.functional.criteria_uniformity` (it lowers all criteria); :meth:`contrast` shows which
    criteria the loss raises. In Fig. 4 the criteria are those of one image, in eq. 8 and 9 those of two images; for two
    images, use two losses, one with positives alone and one with negatives alone. The loss is twice differentiable, as
    the functions are.

    Args:
        align_weight: lambda_a, at least 0; the paper's is 0.01.
        uniformity_weight: lambda_u, at least 0; the paper's is 0.01.
        exponent: eta, at least 1; the paper's is 2.
        t: above 0; the paper's is 2.
        detach_anchor: whether the alignment leaves the anchor alone, so that it cannot be made worse; the uniformity
            still lowers it.
        normalize: whether to divide each criterion by a running mean of its size (momentum 0.99, over all ranks, kept
            in the saved state), since SSIM, L1 and adversarial losses have different scales. In eval mode the means
            stay as they are. With this option the number and order of the criteria must not change.
        count: with ``normalize``, how many criteria there are, including the anchor. 0: as many as in the first call; a
            saved state can be loaded in either case.
        anchor_name: the anchor's name in the metrics.
        reduction: over the elements of the map: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ConfigError: a number out of bounds, a flag that is not a bool, or an unknown reduction.

    Example:
        >>> pixel, ssim, adversarial = torch.tensor(0.1), torch.tensor(0.3), torch.tensor(0.7)
        >>> loss = CriteriaLoss()
        >>> loss(pixel, {"ssim": ssim}, {"adversarial": adversarial})  # 0.01 (0.2^2 + 2 * 0.8^2)
        tensor(0.0132)
        >>> loss.contrast(pixel, {"ssim": ssim}, {"adversarial": adversarial}).metrics["ssim_push"]  # it is lowered
        tensor(-1.)
    """

    paper = "Cria-CL"

    def __init__(
        self,
        *,
        align_weight: float = 0.01,
        uniformity_weight: float = 0.01,
        exponent: float = 2.0,
        t: float = 2.0,
        detach_anchor: bool = False,
        normalize: bool = False,
        count: int = 0,
        anchor_name: str = "anchor",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.align_weight = check_number(align_weight, "CriteriaLoss(align_weight)", at_least=0)
        self.uniformity_weight = check_number(uniformity_weight, "CriteriaLoss(uniformity_weight)", at_least=0)
        self.exponent = check_number(exponent, "CriteriaLoss(exponent)", at_least=1)
        self.t = check_number(t, "CriteriaLoss(t)", above=0)
        self.detach_anchor = check_flag(detach_anchor, "CriteriaLoss(detach_anchor)")
        self.normalize = check_flag(normalize, "CriteriaLoss(normalize)")
        self.scales = RunningScales(
            check_count(count, "CriteriaLoss(count)", at_least=0)
        )  # of anchor, positives and negatives
        self.anchor_name = anchor_name
        check_reduction(reduction, "CriteriaLoss(reduction)")
        self.reduction: Reduction = reduction

    def forward(
        self, anchor: Tensor, positives: Criteria = (), negatives: Criteria = (), mask: Tensor | None = None
    ) -> Tensor:
        """The loss.

        Args:
            anchor: the anchor criterion, a scalar or a map, e.g. (B, 1, H, W); 0 or more.
            positives: criteria by name, or a list of them: scalars or maps whose shapes broadcast with the anchor's.
                With none there is no alignment.
            negatives: criteria in the same form. With none there is no uniformity.
            mask: S in [0, 1], weights the alignment of a map's elements; 1 - S weights the uniformity. None: both
                terms count fully everywhere.

        Returns:
            A scalar, or the map with ``reduction="none"``.

        Raises:
            DataError: neither positives nor negatives, a name that occurs twice, tensors that do not fit, or, with
                ``normalize``, a different number of criteria than before.
        """
        criteria = self._named(anchor, positives, negatives)
        self._measure(criteria)
        return self._combine(list(criteria.values()), len(positives), mask)

    def contrast(
        self, anchor: Tensor, positives: Criteria = (), negatives: Criteria = (), mask: Tensor | None = None
    ) -> Contrast:
        """The loss, with two metrics for ``anchor_name`` and for each criterion, by its name or as ``positive_0``, ...

        ``<name>`` is its mean; ``<name>_push`` is 1 if the loss as a whole raises it, -1 if it lowers it, 0 if it
        leaves it alone. Arguments and errors are those of :meth:`forward`.
        """
        criteria = self._named(anchor, positives, negatives)
        self._measure(criteria)
        loss = self._combine(list(criteria.values()), len(positives), mask)
        with torch.inference_mode(False), torch.enable_grad():  # clones are no inference tensors
            leaves = [at_least_float32(x.detach().clone()).requires_grad_() for x in criteria.values()]
            again = self._combine(leaves, len(positives), None if mask is None else mask.detach().clone()).sum()
            gradients = torch.autograd.grad(again, leaves, allow_unused=True, materialize_grads=True)
        means = {name: leaf.detach().mean() for name, leaf in zip(criteria, leaves, strict=True)}
        pushes = {f"{name}_push": -g.sum().sign() for name, g in zip(criteria, gradients, strict=True)}
        return Contrast(loss, {**means, **pushes})

    def _measure(self, criteria: Mapping[str, Tensor]) -> None:
        if self.normalize and self.training:
            self.scales.update(list(criteria.values()))

    def _combine(self, criteria: list[Tensor], positives: int, mask: Tensor | None) -> Tensor:
        if self.normalize:
            criteria = self.scales(criteria)
        anchor, near, far = criteria[0], criteria[1 : 1 + positives], criteria[1 + positives :]
        terms = []
        if near:
            fixed = anchor.detach() if self.detach_anchor else anchor
            align = criteria_alignment(fixed, near, self.exponent, mask=mask, reduction=self.reduction)
            terms.append(self.align_weight * align)
        if far:
            other = None if mask is None else 1 - mask
            uniformity = criteria_uniformity(anchor, far, self.t, mask=other, reduction=self.reduction)
            terms.append(self.uniformity_weight * uniformity)
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def _named(self, anchor: Tensor, positives: Criteria, negatives: Criteria) -> dict[str, Tensor]:
        """All criteria by name: the anchor, positives, negatives."""
        named = {self.anchor_name: anchor}
        for role, criteria in (("positive", positives), ("negative", negatives)):
            if not isinstance(criteria, (Mapping, Sequence)):
                raise DataError(
                    f"CriteriaLoss({role}s): expected criteria by name, or a list of them, got {describe(criteria)}."
                )
            if not isinstance(criteria, Mapping):
                criteria = {f"{role}_{index}": criterion for index, criterion in enumerate(criteria)}
            for name in criteria.keys() & named.keys():
                raise DataError(f"CriteriaLoss({role}s): expected a new name for each criterion, got {name!r} again.")
            named.update(criteria)
        if len(named) == 1:
            raise DataError("CriteriaLoss: expected at least one criterion beside the anchor, got none.")
        for name, criterion in named.items():
            if not isinstance(criterion, Tensor) or not criterion.is_floating_point() or criterion.numel() == 0:
                raise DataError(
                    f"CriteriaLoss({name}): expected a non-empty floating-point tensor, a scalar or a map, got "
                    f"{describe(criterion)}."
                )
        return named
