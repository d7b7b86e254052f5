"""Dual contrastive loss: "Dual Contrastive Loss and Attention for GANs" (ICCV 2021), as PCL-SR (eq. 7) uses it."""

from __future__ import annotations

from torch import Tensor, nn

from contrastive_sr._checks import check_flag
from contrastive_sr.distributed import gather_rows, reduce_over_ranks
from contrastive_sr.functional.dual import check_logits, dual_contrastive_loss, one_against_all


class DualContrastiveLoss(nn.Module):
    r"""Trains a discriminator by telling each real logit from all fake ones, and each fake one from all real ones.

    .. math:: \mathcal{L} = \mathbb{E}_r\left[-\log \frac{e^{r}}{e^{r} + \sum_f e^{f}}\right]
        + \mathbb{E}_f\left[-\log \frac{e^{-f}}{e^{-f} + \sum_r e^{-r}}\right]

    PCL-SR eq. 7, read as :func:`~contrastive_sr.functional.dual_contrastive_loss` says.

    Args:
        gather: whether the other side's logits come from the batches of all ranks, with gradients. The mean of the
            ranks' losses is then that of one process on the joined batch, also where batches differ in size. A rank
            without samples gives logits of shape (0, ...) and does the same forward and backward passes as the others.

    Example:
        >>> import torch
        >>> DualContrastiveLoss()(torch.zeros(4, 16), torch.zeros(4, 16))  # 2 log 65
        tensor(8.3488)
    """

    def __init__(self, gather: bool = False) -> None:
        super().__init__()
        self.gather = check_flag(gather, "DualContrastiveLoss(gather)")

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss.

        Args:
            real_logits: logits of HR images, any shape.
            fake_logits: logits of SR images, any shape.

        Returns:
            A scalar of at least 0.

        Raises:
            DataError: a tensor that is not floating-point, or is empty (with ``gather``: on all ranks).
        """
        if not self.gather:
            return dual_contrastive_loss(real_logits, fake_logits)
        all_real, _ = gather_rows(real_logits)
        all_fake, _ = gather_rows(fake_logits)
        check_logits(all_real, "DualContrastiveLoss(real_logits)")
        check_logits(all_fake, "DualContrastiveLoss(fake_logits)")
        real_values, fake_values = one_against_all(real_logits, all_fake), one_against_all(-fake_logits, -all_real)
        real = reduce_over_ranks(real_values, all_real.numel(), "mean")
        return real + reduce_over_ranks(fake_values, all_fake.numel(), "mean")
