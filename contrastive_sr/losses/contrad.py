"""What trains a contrastive discriminator: "Training GANs with Stronger Augmentations via Contrastive Discriminator".

ContraD (Jeong and Shin, ICLR 2021, arXiv 2103.09742), which MPF-Net takes its embedding network from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_flag, check_number, check_shape
from contrastive_sr.distributed import gather_rows, reduce_over_ranks
from contrastive_sr.functional.reduction import Reduction, check_reduction
from contrastive_sr.functional.similarity import unit_vectors
from contrastive_sr.functional.supcon import supcon_values
from contrastive_sr.losses.contrast import Contrast


class _ViewLoss(nn.Module):
    """What the two losses share: their arguments, candidates of all ranks, and the reduction.

    Args:
        temperature: tau, above 0.
        gather: whether candidates come from the batches of all ranks.
        reduction: over the anchors.
    """

    def __init__(self, *, temperature: float = 0.1, gather: bool = False, reduction: Reduction = "mean") -> None:
        super().__init__()
        name = type(self).__name__
        self.temperature = check_number(temperature, f"{name}(temperature)", above=0)
        self.gather = check_flag(gather, f"{name}(gather)")
        check_reduction(reduction, f"{name}(reduction)")
        self.reduction: Reduction = reduction

    def _joined(self, x: Tensor) -> tuple[Tensor, int]:
        """The rows of all ranks, if they are gathered, and the index of this rank's first one."""
        return gather_rows(x) if self.gather else (x, 0)

    def _contrast(
        self, anchors: Tensor, candidates: Tensor, positive: Tensor, same: Tensor, anchors_of_all: int
    ) -> Contrast:
        """The loss and its metrics; arguments as in :func:`~contrastive_sr.functional.supcon`."""
        values = supcon_values(anchors, candidates, positive, same, self.temperature)
        with torch.no_grad():
            cosines = unit_vectors(anchors.float()) @ unit_vectors(candidates.float()).T
            means = {
                name: (cosines * mask).sum() / mask.sum().clamp_min(1)
                for name, mask in (("positive_similarity", positive), ("negative_similarity", ~(positive | same)))
            }
        count = anchors_of_all if self.gather else None
        return Contrast(reduce_over_ranks(values, count, self.reduction), means)


class SimCLRLoss(_ViewLoss):
    r"""Finds the other view of each real image among the views of all (NT-Xent: SimCLR, Chen et al., ICML 2020, eq. 1).

    .. math:: \mathcal{L} = \frac{1}{2B} \sum_{i=1}^{2B} -\log
        \frac{\exp(z_i \cdot z_{j(i)} / \tau)}{\sum_{k \neq i} \exp(z_i \cdot z_k / \tau)}

    z are the normalised vectors of two views of B images and j(i) is the other view of the same image. It is
    :func:`~contrastive_sr.functional.supcon` with one positive.

    Args:
        temperature: tau, above 0; the default is SupCon's.
        gather: whether the views come from the batches of all ranks, with gradients. The mean of the ranks' losses then
            equals the loss of one process on the joined batch, even where batch sizes differ.
        reduction: over the 2B views: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ConfigError: a temperature of 0 or less, a flag that is not a bool, or an unknown reduction.

    Example:
        >>> SimCLRLoss(temperature=1.0)(torch.eye(2), torch.eye(2))  # -log(e / (e + 2))
        tensor(0.5514)
    """

    paper = "MPF-Net"

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss.

        Args:
            first: (B, D) vectors of one view of each image.
            second: (B, D) vectors of another view.

        Returns:
            A scalar of at least 0, or (2B,) with ``reduction="none"``.

        Raises:
            DataError: other shapes.
        """
        return self.contrast(first, second).loss

    def contrast(self, first: Tensor, second: Tensor) -> Contrast:
        """The loss, with mean cosines: ``positive_similarity`` to the other view, ``negative_similarity`` to the rest.

        Arguments and errors are those of :meth:`forward`.
        """
        (all_first, own), (all_second, _) = self._joined(first), self._joined(second)
        check_shape(all_first, ("B", "D"), "SimCLRLoss(first)")
        check_shape(all_second, tuple(all_first.shape), "SimCLRLoss(second)")
        total = len(all_first)
        index = torch.arange(own, own + len(first), device=first.device)
        column = torch.arange(2 * total, device=first.device)
        same = torch.cat((index, index + total))[:, None] == column
        partner = torch.cat((index + total, index))[:, None] == column
        anchors, candidates = torch.cat((first, second)), torch.cat((all_first, all_second))
        return self._contrast(anchors, candidates, partner, same, 2 * total)


class FakeContrastLoss(_ViewLoss):
    r"""Draws the fake images together and away from the real ones (SupCon, Khosla et al., NeurIPS 2020, eq. 2).

    .. math:: \mathcal{L} = \frac{1}{B} \sum_{i=1}^{B} \frac{1}{B - 1} \sum_{p \neq i} -\log
        \frac{\exp(f_i \cdot f_p / \tau)}{\sum_{k \neq i} \exp(f_i \cdot f_k / \tau)
        + \sum_k \exp(f_i \cdot r_k / \tau)}

    f are the normalised vectors of B fake images and r those of all views of the real images. It is
    :func:`~contrastive_sr.functional.supcon` with one class. One fake image alone has nothing to be drawn to: the loss
    is 0.

    Args:
        temperature: tau, above 0; the default is SupCon's.
        gather: as in :class:`SimCLRLoss`.
        reduction: over the fake images: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ConfigError: a temperature of 0 or less, a flag that is not a bool, or an unknown reduction.

    Example:
        >>> FakeContrastLoss(temperature=1.0)(torch.ones(2, 2), -torch.ones(4, 2))  # -log(e / (e + 4 / e))
        tensor(0.4327)
    """

    paper = "MPF-Net"

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The loss.

        Args:
            fake: (B, D) vectors of fake images.
            real: (K, D) vectors of real images.

        Returns:
            A scalar of at least 0, or (B,) with ``reduction="none"``.

        Raises:
            DataError: other shapes.
        """
        return self.contrast(fake, real).loss

    def contrast(self, fake: Tensor, real: Tensor) -> Contrast:
        """The loss, with mean cosines: ``positive_similarity`` to other fakes, ``negative_similarity`` to real images.

        Arguments and errors are those of :meth:`forward`.
        """
        (all_fake, own), (all_real, _) = self._joined(fake), self._joined(real)
        check_shape(all_fake, ("B", "D"), "FakeContrastLoss(fake)")
        check_shape(all_real, ("K", all_fake.shape[1]), "FakeContrastLoss(real)")
        index = torch.arange(own, own + len(fake), device=fake.device)
        column = torch.arange(len(all_fake) + len(all_real), device=fake.device)
        same = index[:, None] == column
        positive = (column < len(all_fake)) & ~same
        return self._contrast(fake, torch.cat((all_fake, all_real)), positive, same, len(all_fake))
