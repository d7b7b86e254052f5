"""What trains a contrastive discriminator: "Training GANs with Stronger Augmentations via Contrastive Discriminator".

ContraD (Jeong and Shin, ICLR 2021, arXiv 2103.09742), which MPF-Net takes its embedding network from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_flag, check_number, check_shape
from contrastive_sr.distributed import gather_rows, reduce_over_ranks
from contrastive_sr.functional.supcon import supcon_values


class SimCLRLoss(nn.Module):
    r"""Finds the other view of each real image among the views of all (NT-Xent: SimCLR, Chen et al., ICML 2020, eq. 1).

    .. math:: \mathcal{L} = \frac{1}{2B} \sum_{i=1}^{2B} -\log
        \frac{\exp(z_i \cdot z_{j(i)} / \tau)}{\sum_{k \neq i} \exp(z_i \cdot z_k / \tau)}

    z are the normalised vectors of two views of B images and j(i) is the other view of the same image. It is
    :func:`~contrastive_sr.functional.supcon` with one positive.

    Args:
        temperature: tau, above 0; the default is SupCon's.
        gather: whether the views come from the batches of all ranks, with gradients. The mean of the ranks' losses is
            then that of one process on the joined batch, also where batches differ in size.

    Raises:
        ConfigError: a temperature of 0 or less, or a flag that is none.

    Example:
        >>> SimCLRLoss(temperature=1.0)(torch.eye(2), torch.eye(2))  # -log(e / (e + 2))
        tensor(0.5514)
    """

    def __init__(self, temperature: float = 0.1, gather: bool = False) -> None:
        super().__init__()
        self.temperature = check_number(temperature, "SimCLRLoss(temperature)", above=0)
        self.gather = check_flag(gather, "SimCLRLoss(gather)")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss.

        Args:
            first: (B, D) vectors of one view of each image.
            second: (B, D) vectors of another.

        Returns:
            A scalar of at least 0.

        Raises:
            DataError: other shapes.
        """
        all_first, own = gather_rows(first) if self.gather else (first, 0)
        all_second, _ = gather_rows(second) if self.gather else (second, 0)
        check_shape(all_first, ("B", "D"), "SimCLRLoss(first)")
        check_shape(all_second, tuple(all_first.shape), "SimCLRLoss(second)")
        total = len(all_first)
        index = torch.arange(own, own + len(first), device=first.device)
        column = torch.arange(2 * total, device=first.device)
        same = torch.cat((index, index + total))[:, None] == column
        partner = torch.cat((index + total, index))[:, None] == column
        anchors, candidates = torch.cat((first, second)), torch.cat((all_first, all_second))
        values = supcon_values(anchors, candidates, partner, same, self.temperature)
        return reduce_over_ranks(values, 2 * total, "mean")


class FakeContrastLoss(nn.Module):
    r"""Draws the fake images together and away from the real ones (SupCon, Khosla et al., NeurIPS 2020, eq. 2).

    .. math:: \mathcal{L} = \frac{1}{B} \sum_{i=1}^{B} \frac{1}{B - 1} \sum_{p \neq i} -\log
        \frac{\exp(f_i \cdot f_p / \tau)}{\sum_{k \neq i} \exp(f_i \cdot f_k / \tau)
        + \sum_k \exp(f_i \cdot r_k / \tau)}

    f are the normalised vectors of B fake images and r those of all views of real ones. It is
    :func:`~contrastive_sr.functional.supcon` with one class. One fake image alone has nothing to be drawn to: the loss
    is 0.

    Args:
        temperature: tau, above 0; the default is SupCon's.
        gather: as in :class:`SimCLRLoss`.

    Raises:
        ConfigError: a temperature of 0 or less, or a flag that is none.

    Example:
        >>> FakeContrastLoss(temperature=1.0)(torch.ones(2, 2), -torch.ones(4, 2))  # -log(e / (e + 4 / e))
        tensor(0.4327)
    """

    def __init__(self, temperature: float = 0.1, gather: bool = False) -> None:
        super().__init__()
        self.temperature = check_number(temperature, "FakeContrastLoss(temperature)", above=0)
        self.gather = check_flag(gather, "FakeContrastLoss(gather)")

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The loss.

        Args:
            fake: (B, D) vectors of fake images.
            real: (K, D) vectors of real images.

        Returns:
            A scalar of at least 0.

        Raises:
            DataError: other shapes.
        """
        all_fake, own = gather_rows(fake) if self.gather else (fake, 0)
        all_real, _ = gather_rows(real) if self.gather else (real, 0)
        check_shape(all_fake, ("B", "D"), "FakeContrastLoss(fake)")
        check_shape(all_real, ("K", all_fake.shape[1]), "FakeContrastLoss(real)")
        index = torch.arange(own, own + len(fake), device=fake.device)
        column = torch.arange(len(all_fake) + len(all_real), device=fake.device)
        same = index[:, None] == column
        positive = (column < len(all_fake)) & ~same
        values = supcon_values(fake, torch.cat((all_fake, all_real)), positive, same, self.temperature)
        return reduce_over_ranks(values, len(all_fake), "mean")
