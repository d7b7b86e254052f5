"""L1 distances of whole images in the space of an embedding: Model Contrastive Learning, and feature matching."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contrastive_sr._checks import check_module
from contrastive_sr.embeddings import frozen
from contrastive_sr.functional import embedded_distance
from contrastive_sr.functional.embedded import check_layer_weights
from contrastive_sr.functional.reduction import Reduction, check_reduction
from contrastive_sr.losses.contrast import Contrast


class FeatureDistanceLoss(nn.Module):
    r"""L1 distance of the SR image to positives, minus that to negatives, over layers of an embedding.

    .. math:: \mathcal{L}_i = \frac1P \sum_j d(f_i, p_{ij}) - \frac1N \sum_k d(f_i, n_{ik}), \qquad
        d(f, g) = \sum_{l=1}^{L} \frac{w_l}{C_l H_l W_l} \lVert f^l - g^l \rVert_1

    With negatives alone, the images of N past versions of the SR network compared in VGG's space, it is the self-prior
    guided negative loss of Model Contrastive Learning (arXiv 2309.06023), in which the pixel loss is the only positive
    part. With the HR image and no negatives it is feature matching, a perceptual loss, in any embedding. It is
    unbounded below where there are negatives, and its gradient does not shrink with the distance: it needs a pixel loss
    beside it, and a small share.

    The embedding is used in eval mode and frozen: the gradient reaches the SR image and nothing else.
    :class:`~contrastive_sr.methods.MCL` makes the images, and trains the embedding if it can learn. The loss can be
    differentiated once.

    Args:
        embedding: maps (B, 3, H, W) to a list of feature maps or (B, D) vectors, each image on its own in eval mode.
        layer_weights: w_l, one number of at least 0 for each layer. None: 1 / L each. MCL's released options use 0.2,
            0.3 and 0.5 for ``relu1_2``, ``relu2_2`` and ``relu3_3`` of VGG-16.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ConfigError: an embedding that is no ``nn.Module``, weights that are not such numbers, or an unknown reduction.

    Example:
        >>> import torch
        >>> from contrastive_sr.embeddings import HaarDiscriminator
        >>> sr, hr = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
        >>> matching = FeatureDistanceLoss(HaarDiscriminator())(sr, hr[:, None])
        >>> matching.backward()
        >>> sr.grad.abs().sum() > 0
        tensor(True)
    """

    paper = "Model Contrastive Learning"

    def __init__(
        self,
        embedding: nn.Module,
        *,
        layer_weights: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.layer_weights = check_layer_weights(layer_weights, f"{type(self).__name__}(layer_weights)")
        check_reduction(reduction, f"{type(self).__name__}(reduction)")
        self.reduction: Reduction = reduction
        self.embedding = check_module(embedding, f"{type(self).__name__}(embedding)")

    def forward(self, sr: Tensor, positives: Tensor | None = None, negatives: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            sr: (B, 3, H, W) super-resolved images, RGB in [0, 1].
            positives: (B, P, 3, H, W) images to be close to, in [0, 1]. None: no positives.
            negatives: (B, N, 3, H, W) images to be far from, in [0, 1]. None: no negatives.

        Returns:
            A scalar, or (B,) with ``reduction="none"``.

        Raises:
            DataError: shapes that do not fit each other or the embedding, or neither positives nor negatives.
        """
        return self.contrast(sr, positives, negatives).loss

    def contrast(self, sr: Tensor, positives: Tensor | None = None, negatives: Tensor | None = None) -> Contrast:
        """The loss, with the means of ``positive_distance`` and ``negative_distance``, where there are such images.

        Arguments and errors are those of :meth:`forward`.
        """
        loss, distances = self._contrast(sr, positives, negatives)
        near, far = distances.tensor_split([0 if positives is None else positives.shape[1]], dim=1)
        parts = {"positive_distance": near, "negative_distance": far}
        return Contrast(loss, {name: part.mean() for name, part in parts.items() if part.shape[1]})

    def distances(self, sr: Tensor, positives: Tensor | None = None, negatives: Tensor | None = None) -> Tensor:
        """(B, P + N) distances d of each SR image to its positives and then its negatives."""
        return self._contrast(sr, positives, negatives)[1]

    def _contrast(self, sr: Tensor, positives: Tensor | None, negatives: Tensor | None) -> tuple[Tensor, Tensor]:
        with frozen(self.embedding):
            return embedded_distance(
                sr, positives, negatives, self.embedding, self.layer_weights, reduction=self.reduction
            )
