"""Dual contrastive loss: "Dual Contrastive Loss and Attention for GANs" (ICCV 2021), as PCL-SR (eq. 7) uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_flag
from contrastive_sr.distributed import gather_rows, reduce_over_ranks
from contrastive_sr.functional.dual import check_logits, one_against_all
from contrastive_sr.functional.reduction import Reduction, check_reduction
from contrastive_sr.losses.contrast import Contrast


class DualContrastiveLoss(nn.Module):
    r"""Trains a discriminator by telling each real logit from all fake ones, and each fake one from all real ones.

    .. math:: \mathcal{L} = \mathbb{E}_r\left[-\log \frac{e^{r}}{e^{r} + \sum_f e^{f}}\right]
        + \mathbb{E}_f\left[-\log \frac{e^{-f}}{e^{-f} + \sum_r e^{-r}}\right]

    PCL-SR eq. 7; for our reading of it see :func:`~contrastive_sr.functional.dual_contrastive_loss`.

    Args:
        gather: whether the other side's logits come from the batches of all ranks, with gradients. The mean of the
            ranks' losses then equals the loss of one process on the joined batch, even where batch sizes differ. A rank
            without samples gives logits of shape (0, ...) and does the same forward and backward passes as the others.
        reduction: of each of the two expectations, which are then added: ``"mean"`` or ``"sum"``; or ``"none"``: one
            value for each real logit and then one for each fake one.

    Raises:
        ConfigError: a flag that is not a bool, or an unknown reduction.

    Example:
        >>> import torch
        >>> DualContrastiveLoss()(torch.zeros(4, 16), torch.zeros(4, 16))  # 2 log 65
        tensor(8.3488)
    """

    paper = "PCL-SR"

    def __init__(self, *, gather: bool = False, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.gather = check_flag(gather, "DualContrastiveLoss(gather)")
        check_reduction(reduction, "DualContrastiveLoss(reduction)")
        self.reduction: Reduction = reduction

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss.

        Args:
            real_logits: logits of HR images, any shape.
            fake_logits: logits of SR images, any shape.

        Returns:
            A scalar of at least 0, or (R + F,) for R real and F fake logits with ``reduction="none"``.

        Raises:
            DataError: a tensor that is not floating-point, or is empty (with ``gather``: on all ranks).
        """
        return self.contrast(real_logits, fake_logits).loss

    def contrast(self, real_logits: Tensor, fake_logits: Tensor) -> Contrast:
        """The loss, with the means of this rank's logits, ``real_logit`` and ``fake_logit``.

        Arguments and errors are those of :meth:`forward`.
        """
        own = {"real": real_logits, "fake": fake_logits}
        joined = {side: gather_rows(x)[0] if self.gather else x for side, x in own.items()}
        for side, x in joined.items():
            check_logits(x, f"DualContrastiveLoss({side}_logits)")
        values = {
            "real": one_against_all(real_logits, joined["fake"]),
            "fake": one_against_all(-fake_logits, -joined["real"]),
        }
        metrics = {f"{side}_logit": x.detach().float().sum() / max(x.numel(), 1) for side, x in own.items()}
        if self.reduction == "none":
            return Contrast(torch.cat(list(values.values())), metrics)
        counts = {side: x.numel() if self.gather else None for side, x in joined.items()}
        parts = [reduce_over_ranks(x, counts[side], self.reduction) for side, x in values.items()]
        return Contrast(torch.stack(parts).sum(), metrics)
