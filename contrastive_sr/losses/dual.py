"""Dual contrastive loss: "Dual Contrastive Loss and Attention for GANs" (ICCV 2021), as PCL-SR (eq. 7) uses it."""

from __future__ import annotations

from torch import Tensor, nn

from contrastive_sr.distributed import gather_with_gradient
from contrastive_sr.functional.dual import check_logits, dual_contrastive_loss, one_against_all


class DualContrastiveLoss(nn.Module):
    r"""Trains a discriminator by telling each real logit from all fake ones, and each fake one from all real ones.

    .. math:: \mathcal{L} = \mathbb{E}_r\left[-\log \frac{e^{r}}{e^{r} + \sum_f e^{f}}\right]
        + \mathbb{E}_f\left[-\log \frac{e^{-f}}{e^{-f} + \sum_r e^{-r}}\right]

    PCL-SR eq. 7, read as :func:`~contrastive_sr.functional.dual_contrastive_loss` says.

    Args:
        gather: whether the other side's logits come from the batches of all ranks, with gradients. All ranks must then
            bring batches of one size. The mean of the ranks' losses is that of one process on the joined batch.

    Example:
        >>> import torch
        >>> DualContrastiveLoss()(torch.zeros(4, 16), torch.zeros(4, 16))  # 2 log 65
        tensor(8.3488)
    """

    def __init__(self, gather: bool = False) -> None:
        super().__init__()
        self.gather = gather

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss.

        Args:
            real_logits: logits of HR images, any shape.
            fake_logits: logits of SR images, any shape.

        Returns:
            A scalar of at least 0.

        Raises:
            DataError: an empty tensor, or one that is not floating-point.
        """
        if not self.gather:
            return dual_contrastive_loss(real_logits, fake_logits)
        check_logits(real_logits, "DualContrastiveLoss(real_logits)")
        check_logits(fake_logits, "DualContrastiveLoss(fake_logits)")
        all_real, all_fake = gather_with_gradient(real_logits), gather_with_gradient(fake_logits)
        return one_against_all(real_logits, all_fake) + one_against_all(-fake_logits, -all_real)
