"""Contrast of feature maps position by position: CRL-SR eq. 2 and 3 (arXiv 2107.00708)."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr.functional.logsumexp import pair_statistics
from contrastive_sr.functional.nce import one_against_rest
from contrastive_sr.losses.positions import (
    Features,
    PositionContrast,
    PositionLoss,
    joined_mean,
    mean_figure,
    own_first,
)


class InfoNCELoss(PositionLoss):
    r"""Tells the candidate at the anchor's own place from those at other places (CRL-SR eq. 2).

    .. math:: \mathcal{L}_c(a, c) = -\frac{1}{M} \sum_{m=1}^{M} \log
        \frac{\exp(a_m \cdot c_m / \tau)}{\sum_{j=1}^{M} \exp(a_m \cdot c_j / \tau)}

    The paper sums over the positions, this is the mean over positions, images and layers. How it is computed, and how
    often it can be differentiated, says :func:`~contrastive_sr.functional.info_nce`; its arguments are those of
    :class:`~contrastive_sr.losses.positions.PositionLoss`.

    Example:
        >>> sr, hr = torch.rand(2, 16, 8, 8, requires_grad=True), torch.rand(2, 16, 8, 8)
        >>> InfoNCELoss(channels=[16], positions=32)(sr, hr).shape
        torch.Size([])
    """

    bidirectional = False

    def forward(self, anchor: Features, candidates: Features, generator: torch.Generator | None = None) -> Tensor:
        """The loss.

        Args:
            anchor: maps (B, C, H, W), vectors (B, C), or a list of these, one a layer.
            candidates: likewise, of the same images.
            generator: draws the positions, on the features' device. None takes torch's own.

        Returns:
            A scalar of at least 0.

        Raises:
            DataError: features that do not fit each other or the heads.
        """
        return self.contrast(anchor, candidates, generator).loss

    def contrast(
        self, anchor: Features, candidates: Features, generator: torch.Generator | None = None
    ) -> PositionContrast:
        """The loss with the similarity behind it, for logs; arguments and errors are those of :meth:`forward`."""
        return self._contrast({"anchor": anchor, "candidates": candidates}, "anchor", generator)

    def _layer_contrast(self, vectors: dict[str, Tensor]) -> PositionContrast:
        a, b = vectors["anchor"], vectors["candidates"]
        if self.gather:
            loss, positive = self._direction(a, b)
            if self.bidirectional:
                loss = loss + self._direction(b, a)[0]
        else:
            statistics = pair_statistics(a, b, self.temperature, columns=self.bidirectional)
            positive = statistics.positive
            loss = one_against_rest(positive, statistics.rows).mean()
            if statistics.columns is not None:
                loss = loss + one_against_rest(positive, statistics.columns).mean()
        return PositionContrast(loss, mean_figure(positive) * self.temperature)

    def _direction(self, anchor: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Against the candidates of all ranks: this rank's part of the loss, and the logits of its positives."""
        joined = own_first(candidates)
        statistics = pair_statistics(anchor, joined, self.temperature)
        values = one_against_rest(statistics.positive, statistics.rows)
        return joined_mean(values, joined), statistics.positive


class BidirectionalNCELoss(InfoNCELoss):
    r""":class:`InfoNCELoss` in both directions (CRL-SR eq. 3).

    .. math:: \mathcal{L}_{bc} = \mathcal{L}_c(a, c) + \mathcal{L}_c(c, a)

    On one process both come from one pass over the logits; arguments are those of
    :class:`~contrastive_sr.losses.positions.PositionLoss`.

    Example:
        >>> lr, hr = torch.rand(2, 64, 12, 12, requires_grad=True), torch.rand(2, 9, 48, 48)
        >>> BidirectionalNCELoss(channels=[9], anchor_channels=[64])(lr, hr).shape
        torch.Size([])
    """

    bidirectional = True
