"""Contrast of whole images in the space of an embedding: PCL-SR (arXiv 2111.13924), MPF-Net's regularization."""

from __future__ import annotations

from torch import Tensor, nn

from contrastive_sr._checks import check_module, check_number
from contrastive_sr.embeddings import frozen
from contrastive_sr.functional import embedded_nce, plain_embedded_nce
from contrastive_sr.functional.embedded import Similarity, check_similarity
from contrastive_sr.functional.reduction import Reduction, check_reduction
from contrastive_sr.losses.contrast import Contrast


class ImageContrastLoss(nn.Module):
    r"""Pulls the SR image to several positives and pushes it from several negatives, over layers of an embedding.

    .. math:: \mathcal{L}_{CL} = \frac{1}{NLP} \sum_{i,l,j} -\log
        \frac{\exp(s(f_i^l, p_{ij}^l)/\tau)}{\exp(s(f_i^l, p_{ij}^l)/\tau) + \sum_k \exp(s(f_i^l, n_{ik}^l)/\tau)}

    With the similarity ``"cosine"``, the mean pixel cosine of PCL-SR's eq. 9, these are PCL-SR's eq. 8 to 10. With
    ``"dot"``, the dot product of two whole maps, they are MPF-Net's eq. 9 to 11 as printed; such a similarity grows
    with the maps' size and scale, so that no temperature fits all layers and the softmax saturates. With the cosine,
    MPF-Net's loss is PCL-SR's on other samples.

    The embedding is used in eval mode and frozen: the gradient reaches the SR image and nothing else. Training it is a
    separate step, see :class:`~contrastive_sr.losses.DualContrastiveLoss`; :class:`~contrastive_sr.methods.PCL` does
    both, and also makes the samples. With ``"cosine"`` it can be differentiated once, with ``"dot"`` as often as the
    embedding.

    At equal weight the gradient at an SR image in [0, 1] is tens of times that of L1: PCL-SR's weight of 0.1 is, we
    think, for images in [0, 255]; for ours it becomes 0.1 / 255 = 0.0004.

    Args:
        embedding: maps (B, 3, H, W) to a list of feature maps or (B, D) vectors, each image on its own in eval mode.
            PCL-SR's is :class:`~contrastive_sr.embeddings.HaarDiscriminator`, MPF-Net's
            :class:`~contrastive_sr.embeddings.SNResNet18`.
        temperature: tau, above 0; PCL-SR and MPF-Net give no value.
        similarity: ``"cosine"`` or ``"dot"``.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``. The mean over layers and positives is always
            taken.

    Raises:
        ConfigError: an embedding that is no ``nn.Module``, a temperature of 0 or less, or an unknown similarity or
            reduction.

    Example:
        >>> import torch
        >>> from contrastive_sr.embeddings import HaarDiscriminator
        >>> sr, hr = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> loss = ImageContrastLoss(HaarDiscriminator())(sr, hr[:, None], negatives=torch.rand(1, 2, 3, 64, 64))
        >>> loss.backward()
        >>> sr.grad.abs().sum() > 0
        tensor(True)
    """

    paper = "PCL-SR, MPF-Net"

    def __init__(
        self,
        embedding: nn.Module,
        *,
        temperature: float = 1.0,
        similarity: Similarity = "cosine",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.temperature = check_number(temperature, f"{name}(temperature)", above=0)
        check_similarity(similarity, f"{name}(similarity)")
        self.similarity: Similarity = similarity
        check_reduction(reduction, f"{name}(reduction)")
        self.reduction: Reduction = reduction
        self.embedding = check_module(embedding, f"{name}(embedding)")

    def forward(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """The loss.

        Args:
            sr: (B, 3, H, W) super-resolved images, RGB in [0, 1].
            positives: (B, P, 3, H, W) images to be close to, in [0, 1].
            negatives: (B, N, 3, H, W) images to be far from, in [0, 1].

        Returns:
            A scalar, or (B,) with ``reduction="none"``.

        Raises:
            DataError: shapes that do not fit each other or the embedding, no positives, or no negatives.
        """
        return self.contrast(sr, positives, negatives).loss

    def contrast(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> Contrast:
        """The loss, with the means of ``positive_similarity`` and ``negative_similarity``.

        Arguments and errors are those of :meth:`forward`.
        """
        loss, similarities = self._contrast(sr, positives, negatives)
        near, far = similarities.split((positives.shape[1], negatives.shape[1]), dim=1)
        return Contrast(loss, {"positive_similarity": near.mean(), "negative_similarity": far.mean()})

    def similarities(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """(B, P + N) similarities of each SR image to its positives and then its negatives, mean over the layers."""
        return self._contrast(sr, positives, negatives)[1]

    def _contrast(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        images = (sr, positives, negatives)
        with frozen(self.embedding):
            if self.similarity == "cosine":
                return embedded_nce(*images, self.embedding, self.temperature, reduction=self.reduction)
            return plain_embedded_nce(
                *images, self.embedding, self.temperature, reduction=self.reduction, similarity=self.similarity
            )
