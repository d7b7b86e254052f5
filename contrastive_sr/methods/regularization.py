"""MPF-Net's contrastive regularisation on any SR network."""

from __future__ import annotations

from collections.abc import Sequence

from contrastive_sr.losses import ContrastiveRegularizationLoss
from contrastive_sr.methods.embedding import EmbeddingConfig, ImageMethod
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SampleConfig


class ContrastiveRegularization(ImageMethod):
    """MPF-Net eq. 9 to 11: contrast of the SR image with any positives and negatives, in any embedding.

    The training of an embedding that can learn is that of :class:`~contrastive_sr.methods.PCL`; with the variant
    ``"cosine"`` the loss is PCL's as well. How the samples differ from the paper's says
    :class:`~contrastive_sr.losses.ContrastiveRegularizationLoss`; with the paper's own samples, embedding and schedule
    it is :class:`~contrastive_sr.methods.MPF`.

    Terms: ``contrastive``. Figures: ``positive_similarity``, ``negative_similarity``.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead, the share of the pixel loss's gradient to keep, e.g. 0.05.
        temperature: tau, above 0.
        variant: ``"cosine"``, or ``"paper"`` for the paper's dot product of whole maps.
        embedding: a mapping such as ``{"type": "VGGFeatures"}``, or an embedding. Default: ``HaarDiscriminator``.
        train_embedding: whether the embedding learns. None: if it can.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators. Default: HR and three
            sharpened.
        negatives: likewise. Default: four blurred and the enlarged LR image.
        seed: seed of the samples' randomness.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of the share to the next.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> method = ContrastiveRegularization(loss_share=0.05)
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(method.auxiliary_losses(batch))
        ['regularization_discriminator']
    """

    loss: ContrastiveRegularizationLoss

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 1.0,
        variant: str = "cosine",
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | None = None,
        positives: Sequence[SampleConfig] = ({"type": "HighResolution"}, {"type": "Sharpen", "count": 3}),
        negatives: Sequence[SampleConfig] = ({"type": "GaussianBlur", "count": 4}, {"type": "UpsampledLowResolution"}),
        seed: int = 0,
        name: str = "regularization",
        share_interval: int = 5,
    ) -> None:
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share, share_interval)
        super().__init__(name, seed, weight, positives, negatives)
        network = self.build_embedding(embedding, train_embedding)
        self.loss = ContrastiveRegularizationLoss(network, self.positives, self.negatives, temperature, variant)
        self.measure = self.loss.measure
