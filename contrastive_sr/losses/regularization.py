"""MPF-Net: "Learning from Multi-Perception Features for Real-World Image Super-resolution"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_number
from contrastive_sr.embeddings import HaarDiscriminator, frozen
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional import embedded_nce, plain_embedded_nce
from contrastive_sr.losses.pcl import ImageContrast
from contrastive_sr.samples import Batch, SampleConfig, build_samples, draw

VARIANTS = ("cosine", "paper")


class ContrastiveRegularizationLoss(nn.Module):
    r"""Pulls the SR image to positives and pushes it from negatives made from HR and LR, over layers of an embedding.

    .. math:: \mathcal{L}_{CR} = \frac{1}{BLM} \sum_{i,l,m} -\log
        \frac{\exp(s(f_i^l, p_{im}^l)/\tau)}{\exp(s(f_i^l, p_{im}^l)/\tau) + \sum_n \exp(s(f_i^l, q_{in}^l)/\tau)}

    MPF-Net eq. 9 to 11. In eq. 10 the similarity s is the dot product of two whole maps. It grows with their size and
    the features' scale, so that no temperature fits all layers and the softmax saturates: that is ``"paper"``. The
    default ``"cosine"`` is the mean cosine of PCL-SR's eq. 9, which makes this the loss of
    :class:`~contrastive_sr.losses.PCLLoss` over MPF-Net's samples. The embedding is used in eval mode and frozen: the
    gradient reaches the SR image and nothing else. Differentiable once with ``"cosine"``, and as often as the
    embedding with ``"paper"``.

    The paper's positives are HR, three high-passed HR images and a teacher's output (eq. 7), its negatives four HR
    images with blur and noise, and the LR image (eq. 8). Ours are the same with sharpened images for the high-passed
    ones, whose filters the paper does not give, without teacher and noise, which :class:`~contrastive_sr.methods.MPF`
    has. Its temperature is not given either.

    Args:
        embedding: maps (B, 3, H, W) to a list of feature maps or (B, D) vectors, each image on its own in eval mode.
            None: a new :class:`~contrastive_sr.embeddings.HaarDiscriminator`, which should be trained alongside. The
            paper's is :class:`~contrastive_sr.embeddings.SNResNet18`.
        positives: sample generators, or mappings such as ``{"type": "Sharpen", "count": 3}``.
        negatives: likewise.
        temperature: tau, above 0.
        variant: ``"cosine"`` or ``"paper"``.

    Raises:
        ConfigError: a temperature of 0 or less, an unknown variant, or samples that cannot be built.

    Example:
        >>> sr = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> loss = ContrastiveRegularizationLoss()(sr, {"hr": torch.rand(1, 3, 64, 64), "lr": torch.rand(1, 3, 16, 16)})
        >>> loss.backward()
        >>> sr.grad.abs().sum() > 0
        tensor(True)
    """

    def __init__(
        self,
        embedding: nn.Module | None = None,
        positives: Sequence[SampleConfig] = ({"type": "HighResolution"}, {"type": "Sharpen", "count": 3}),
        negatives: Sequence[SampleConfig] = ({"type": "GaussianBlur", "count": 4}, {"type": "UpsampledLowResolution"}),
        temperature: float = 1.0,
        variant: str = "cosine",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.positives = build_samples(positives, f"{name}(positives)")
        self.negatives = build_samples(negatives, f"{name}(negatives)")
        self.temperature = check_number(temperature, f"{name}(temperature)", above=0)
        if variant not in VARIANTS:
            raise ConfigError(f"{name}(variant): expected one of {', '.join(VARIANTS)}, got {variant!r}.")
        self.variant = variant
        self.embedding = HaarDiscriminator() if embedding is None else embedding

    @property
    def measure(self) -> str:
        """What its similarities are, in words."""
        return "cosine, mean over positions and layers" if self.variant == "cosine" else "dot product, mean over layers"

    def forward(self, sr: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The loss.

        Args:
            sr: (B, 3, H, W) super-resolved images, RGB in [0, 1].
            batch: ``"hr"`` (B, 3, H, W) and ``"lr"`` (B, 3, h, w), in [0, 1], which the samples are made from.
            generator: source of the samples' randomness, on the images' device; None takes torch's own.

        Returns:
            A scalar.

        Raises:
            DataError: shapes that do not fit each other or the embedding, or a batch without what a sample needs.
        """
        positives, negatives = draw(self.positives, batch, generator), draw(self.negatives, batch, generator)
        return self.contrast(sr, positives, negatives).loss

    def contrast(self, sr: Tensor, positives: Tensor, negatives: Tensor) -> ImageContrast:
        """The loss over given samples, with the similarities behind it, for logs.

        Args:
            sr: (B, 3, H, W) super-resolved images, RGB in [0, 1].
            positives: (B, M, 3, H, W) images to be close to, in [0, 1].
            negatives: (B, N, 3, H, W) images to be far from, in [0, 1].

        Returns:
            The loss, and the similarities (B, M) and (B, N) as means over the layers: cosines, or with ``"paper"`` dot
            products.

        Raises:
            DataError: shapes that do not fit each other or the embedding.
        """
        with frozen(self.embedding):
            if self.variant == "cosine":
                loss, similarity = embedded_nce(sr, positives, negatives, self.embedding, self.temperature)
            else:
                loss, similarity = plain_embedded_nce(
                    sr, positives, negatives, self.embedding, self.temperature, similarity="dot"
                )
        return ImageContrast(loss, *similarity.split((positives.shape[1], negatives.shape[1]), dim=1))
