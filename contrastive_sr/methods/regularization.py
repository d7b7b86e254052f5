"""MPF-Net's contrastive regularisation on any SR network."""

from __future__ import annotations

from collections.abc import Sequence

from contrastive_sr.functional.embedded import Similarity
from contrastive_sr.losses import ImageContrastLoss
from contrastive_sr.methods.embedding import BLURRED, PATTERNED, SHARPENED, UPSAMPLED, EmbeddingConfig, Phase
from contrastive_sr.methods.images import ImageMethod
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SampleConfig


@register_method
class ContrastiveRegularization(ImageMethod):
    """MPF-Net eq. 9 to 11: contrast of the SR image with any positives and negatives, in any embedding.

    An embedding that can learn is trained as that of :class:`~contrastive_sr.methods.PCL`; with the similarity
    ``"cosine"`` the loss is PCL's as well, over other samples. The paper's are HR, three high-passed HR images and a
    teacher's output, against four blurred HR images with noise and the LR image (eq. 7 and 8). Ours are the same with
    sharpened images for the high-passed ones, whose filters the paper does not give, without teacher and noise; with
    all of it, the paper's embedding and its schedule it is :class:`~contrastive_sr.methods.MPF`.

    Terms: ``contrastive``. Metrics: ``positive_similarity``, ``negative_similarity``.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead, the share of the pixel loss's gradient to keep. With neither it is 0.05.
        temperature: tau, above 0.
        similarity: ``"cosine"``, or ``"dot"`` for the paper's dot product of whole maps.
        embedding: a mapping such as ``{"type": "VGGFeatures"}``, or an embedding. Default:
            ``StationaryHaarDiscriminator``.
        train_embedding: whether the embedding learns. None: if it can.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators. Default: HR and three
            sharpened.
        negatives: mappings or sample generators. Default: four blurred HR images, the
            enlarged LR image, and the SR image under a periodic pattern, ours.
        seed: seed of the samples' randomness.
        name: prefix of everything that is logged.
        share_interval: applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper: whether the embedding's grid moves from step to step, lest
            dots that repeat with it go unnoticed.
        every: steps from one at which the term is applied, and the embedding learns, to the next; its weight is so
            many times as large there.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> net, methods = torch.nn.Upsample(scale_factor=4), Methods([ContrastiveRegularization()])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['regularization_discriminator']
    """

    paper = "MPF-Net"

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 1.0,
        similarity: Similarity = "cosine",
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | None = None,
        positives: Sequence[SampleConfig] = SHARPENED,
        negatives: Sequence[SampleConfig] = (*BLURRED, *UPSAMPLED, *PATTERNED),
        seed: int = 0,
        name: str = "regularization",
        share_interval: int = 5,
        phase: Phase = "random",
        every: int = 1,
    ) -> None:
        super().__init__(
            name,
            seed=seed,
            weight=TermWeight(f"{name}_contrastive", loss_weight, loss_share, interval=share_interval),
            embedding=embedding,
            train_embedding=train_embedding,
            positives=positives,
            negatives=negatives,
            phase=phase,
            every=every,
        )
        self.loss = ImageContrastLoss(self.embedding, temperature=temperature, similarity=similarity)
