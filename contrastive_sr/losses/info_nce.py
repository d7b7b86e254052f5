"""Contrast of feature maps position by position: CRL-SR eq. 2 and 3 (arXiv 2107.00708)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr.functional.logsumexp import pair_statistics
from contrastive_sr.functional.nce import one_against_rest
from contrastive_sr.losses.contrast import Contrast
from contrastive_sr.losses.positions import Features, PositionLoss, mean_metric, own_first


class InfoNCELoss(PositionLoss):
    r"""Tells the candidate at the anchor's own place from those at other places (CRL-SR eq. 2).

    .. math:: \mathcal{L}_c(a, c) = -\frac{1}{M} \sum_{m=1}^{M} \log
        \frac{\exp(a_m \cdot c_m / \tau)}{\sum_{j=1}^{M} \exp(a_m \cdot c_j / \tau)}

    The paper sums over the positions (``reduction="sum"``); the default is the mean over positions, images and layers.
    For how it is computed, and how often it can be differentiated, see :func:`~contrastive_sr.functional.info_nce`. It
    takes the arguments of :class:`~contrastive_sr.losses.positions.PositionLoss`.

    Example:
        >>> sr, hr = torch.rand(2, 16, 8, 8, requires_grad=True), torch.rand(2, 16, 8, 8)
        >>> InfoNCELoss(channels=[16], positions=32)(sr, hr).shape
        torch.Size([])
    """

    paper = "CRL-SR"
    anchor_role = "anchor"
    bidirectional = False

    def forward(self, anchor: Features, candidates: Features, generator: torch.Generator | None = None) -> Tensor:
        """The loss.

        Args:
            anchor: maps (B, C, H, W), vectors (B, C), or a list of these, one per layer.
            candidates: features of the same images, in the form of ``anchor``.
            generator: draws the positions, on the features' device. None: torch's default generator.

        Returns:
            A scalar of at least 0, or (B, M) with ``reduction="none"``.

        Raises:
            DataError: features that do not fit each other or the heads.
        """
        return self.contrast(anchor, candidates, generator).loss

    def contrast(self, anchor: Features, candidates: Features, generator: torch.Generator | None = None) -> Contrast:
        """The loss, with the mean cosine of the matching pairs, ``positive_similarity``.

        Arguments and errors are those of :meth:`forward`.
        """
        return self.contrast_roles({"anchor": anchor, "candidates": candidates}, generator)

    def _layer_contrast(self, vectors: dict[str, Tensor]) -> Contrast:
        a, b = vectors["anchor"], vectors["candidates"]
        joined: list[Tensor] = []
        if self.gather:
            joined = [own_first(b), own_first(a)] if self.bidirectional else [own_first(b)]
            directions = zip((a, b), joined, strict=False)
            statistics = [pair_statistics(anchors, others, self.temperature) for anchors, others in directions]
            pairs = [(direction.positive, direction.rows) for direction in statistics]
        else:
            both = pair_statistics(a, b, self.temperature, columns=self.bidirectional)
            pairs = [(both.positive, rest) for rest in (both.rows, both.columns) if rest is not None]
        values = torch.stack([one_against_rest(positive, rest) for positive, rest in pairs]).sum(0)
        similarity = mean_metric(pairs[0][0]) * self.temperature
        return Contrast(self._reduce(values, *joined), {"positive_similarity": similarity})


class BidirectionalNCELoss(InfoNCELoss):
    r""":class:`InfoNCELoss` in both directions (CRL-SR eq. 3).

    .. math:: \mathcal{L}_{bc} = \mathcal{L}_c(a, c) + \mathcal{L}_c(c, a)

    On one process both directions come from one pass over the logits. It takes the arguments of
    :class:`~contrastive_sr.losses.positions.PositionLoss`.

    Example:
        >>> lr, hr = torch.rand(2, 64, 12, 12, requires_grad=True), torch.rand(2, 9, 48, 48)
        >>> BidirectionalNCELoss(channels=[9], anchor_channels=[64])(lr, hr).shape
        torch.Size([])
    """

    bidirectional = True
