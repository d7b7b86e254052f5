"""PCL-SR: "A Practical Contrastive Learning Framework for Single Image Super-Resolution" (arXiv 2111.13924)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from contrastive_sr._checks import check_number
from contrastive_sr.embeddings import HaarDiscriminator, frozen
from contrastive_sr.functional import embedded_nce


class ImageContrast(NamedTuple):
    """A loss between images, and the similarities behind it.

    Attributes:
        loss: the loss, a scalar; the only part with a gradient.
        positive_similarity: (B, P) similarities to the positives, mean over the layers.
        negative_similarity: (B, N) similarities to the negatives, mean over the layers.
    """

    loss: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor


class PCLLoss(nn.Module):
    r"""Pulls the SR image to several positives and pushes it from several negatives, over layers of an embedding.

    .. math:: \mathcal{L}_{CL} = \frac{1}{NLP} \sum_{i,l,j} -\log
        \frac{\exp(s(f_i^l, p_{ij}^l)/\tau)}{\exp(s(f_i^l, p_{ij}^l)/\tau) + \sum_k \exp(s(f_i^l, n_{ik}^l)/\tau)}

    PCL-SR eq. 8 to 10; s is the mean pixel cosine of eq. 9. The embedding is used in eval mode and frozen: the
    gradient reaches the SR image and nothing else. Its training (eq. 7) is a step of its own, see
    :class:`~contrastive_sr.losses.DualContrastiveLoss`; :class:`~contrastive_sr.methods.PCL` does both, and makes the
    samples. Differentiable once.

    At equal weight the gradient at an SR image in [0, 1] is tens of times that of L1: the paper's weight 0.1 is for
    images in [0, 255], and 0.1 / 255 = 0.0004 for ours.

    Args:
        embedding: maps (B, 3, H, W) to a list of feature maps, each image on its own in eval mode. None: a new
            :class:`~contrastive_sr.embeddings.HaarDiscriminator`, which should be trained alongside.
        temperature: tau, above 0; the paper names none and used 1.

    Raises:
        ConfigError: a temperature of 0 or less.

    Example:
        >>> import torch
        >>> sr, hr = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> loss = PCLLoss()(sr, positives=hr[:, None], negatives=torch.rand(1, 2, 3, 64, 64))
        >>> loss.backward()
        >>> sr.grad.abs().sum() > 0
        tensor(True)
    """

    def __init__(self, embedding: nn.Module | None = None, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_number(temperature, "PCLLoss(temperature)", above=0)
        self.embedding = HaarDiscriminator() if embedding is None else embedding

    def forward(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """The loss.

        Args:
            sr: (B, 3, H, W) super-resolved images, RGB in [0, 1].
            positives: (B, P, 3, H, W) images to be close to, in [0, 1].
            negatives: (B, N, 3, H, W) images to be far from, in [0, 1].

        Returns:
            A scalar.

        Raises:
            DataError: shapes that do not fit each other or the embedding, no positives, or no negatives.
        """
        return self.contrast(sr, positives, negatives).loss

    def contrast(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> ImageContrast:
        """The loss with the similarities behind it, for logs; arguments and errors are those of :meth:`forward`."""
        with frozen(self.embedding):
            loss, similarity = embedded_nce(sr, positives, negatives, self.embedding, self.temperature)
        return ImageContrast(loss, *similarity.split((positives.shape[1], negatives.shape[1]), dim=1))
