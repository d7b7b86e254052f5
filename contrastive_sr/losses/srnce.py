"""The conditional contrast of SR feature maps: CRL-SR eq. 4 to 6 (arXiv 2107.00708)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import check_flag
from contrastive_sr.functional.reduction import Reduction
from contrastive_sr.functional.srnce import Condition, Variant, check_variant
from contrastive_sr.losses.contrast import Contrast
from contrastive_sr.losses.positions import Features, NegativesFrom, PositionLoss, mean_metric, own_first


class SRNCELoss(PositionLoss):
    r"""Pulls SR features to the HR features of their place, on the condition of LR features (CRL-SR eq. 6).

    .. math:: \mathcal{L}_{SRNCE} = -\frac{1}{M} \sum_{m=1}^{M} \log
        \frac{e^{(h_m \cdot s_m - p_m)/\tau} + e^{(1 - s_m \cdot l_m - p_m)/\tau}}
        {e^{(h_m \cdot s_m - p_m)/\tau} + e^{(1 - s_m \cdot l_m - p_m)/\tau} + \sum_{j \neq m} e^{h_m \cdot s_j/\tau}},
        \quad p_m = 1 - h_m \cdot l_m

    It is the mean over positions, images and layers. For the variants see :func:`~contrastive_sr.functional.srnce`; use
    ``"negative"``, unless you want to reproduce the paper.

    Args:
        temperature: tau, above 0; not used by ``"paper"``, which has none.
        variant: ``"negative"``, ``"tempered"`` or ``"paper"``.
        penalty: whether to subtract :math:`p_m`.
        detach_hr: whether the HR features get no gradient. The heads still learn from them.
        detach_lr: whether the LR features get no gradient. The heads still learn from them.
        channels: C of each layer, which then gets a head; see :class:`~contrastive_sr.losses.positions.PositionLoss`.
        anchor_channels: C of each layer of the SR features, if they come from a different network than those of HR and
            LR.
        dim: dimension of the vectors that the heads give; the paper's is 256.
        positions: how many positions of each layer to sample. None: all of them.
        negatives_from: ``"image"`` or ``"batch"``.
        gather: whether negatives come from all ranks; needs ``negatives_from="batch"``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, see :class:`~contrastive_sr.losses.positions.PositionLoss`.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> hr, sr, lr = torch.rand(3, 2, 16, 8, 8)
        >>> SRNCELoss()([hr], [sr.requires_grad_()], [lr]).shape
        torch.Size([])
    """

    paper = "CRL-SR"
    anchor_role = "sr"

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        variant: Variant = "negative",
        penalty: bool = True,
        detach_hr: bool = True,
        detach_lr: bool = True,
        channels: Sequence[int] | None = None,
        anchor_channels: Sequence[int] | None = None,
        dim: int = 256,
        positions: int | None = 256,
        negatives_from: NegativesFrom = "image",
        gather: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            temperature=temperature,
            channels=channels,
            anchor_channels=anchor_channels,
            dim=dim,
            positions=positions,
            negatives_from=negatives_from,
            gather=gather,
            reduction=reduction,
        )
        check_variant(variant, "SRNCELoss(variant)")
        self.detach_hr = check_flag(detach_hr, "SRNCELoss(detach_hr)")
        self.detach_lr = check_flag(detach_lr, "SRNCELoss(detach_lr)")
        check_flag(penalty, "SRNCELoss(penalty)")
        # Detached are the features, before the heads.
        self.condition = Condition(self.temperature, variant, penalty, detach_hr=False, detach_lr=False)

    def forward(self, hr: Features, sr: Features, lr: Features, generator: torch.Generator | None = None) -> Tensor:
        """The loss.

        Args:
            hr: features of the HR images: maps (B, C, H, W), vectors (B, C), or a list of these, one per layer.
            sr: features of the SR images, in the same form.
            lr: features of the enlarged LR images, in the same form.
            generator: draws the positions, on the features' device. None: torch's default generator.

        Returns:
            A scalar of at least 0, or (B, M) with ``reduction="none"``.

        Raises:
            DataError: features that do not fit each other or the heads.
        """
        return self.contrast(hr, sr, lr, generator).loss

    def contrast(self, hr: Features, sr: Features, lr: Features, generator: torch.Generator | None = None) -> Contrast:
        """The loss, with mean cosines of SR features: ``positive_similarity`` to HR, ``lr_similarity`` to LR.

        Arguments and errors are those of :meth:`forward`.
        """
        hr = _detached(hr) if self.detach_hr else hr
        lr = _detached(lr) if self.detach_lr else lr
        return self.contrast_roles({"hr": hr, "sr": sr, "lr": lr}, generator)

    def _layer_contrast(self, vectors: dict[str, Tensor]) -> Contrast:
        joined = [own_first(vectors["sr"])] if self.gather else []
        sr = joined[0] if joined else vectors["sr"]
        values, to_hr, to_lr = self.condition.contrast(vectors["hr"], sr, vectors["lr"])
        metrics = {"positive_similarity": mean_metric(to_hr), "lr_similarity": mean_metric(to_lr)}
        return Contrast(self._reduce(values, *joined), metrics)


def _detached(features: Features) -> Features:
    if isinstance(features, Sequence):  # what in it is no tensor is refused later, with the role's name
        return [x.detach() if isinstance(x, Tensor) else x for x in features]
    return features.detach() if isinstance(features, Tensor) else features
