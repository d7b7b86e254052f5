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

    An embedding that can learn is trained like that of :class:`~contrastive_sr.methods.PCL`; with the similarity
    ``"cosine"`` the loss is PCL's as well, on other samples. The paper's samples are HR, three high-passed HR images
    and a teacher's output, against four blurred HR images with noise and the LR image (eq. 7 and 8). Ours are the same
    without teacher and noise, with sharpened images in place of the high-passed ones, whose filters the paper does not
    give, and with one more negative against dots. With a teacher and noise as well, and with the paper's embedding and
    schedule, it is :class:`~contrastive_sr.methods.MPF`.

    Terms: ``contrastive``. Metrics: ``positive_similarity``, ``negative_similarity``.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given, the
            share is 0.05.
        temperature: tau, above 0.
        similarity: ``"cosine"``, or ``"dot"`` for the paper's dot product of whole maps.
        embedding: a mapping such as ``{"type": "VGGFeatures"}``, or an embedding. Default:
            ``StationaryHaarDiscriminator``.
        train_embedding: whether the embedding learns; a whole number: only in the first so many steps of the training,
            as far as the method takes part in them. None: it learns if it can.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators. Default: HR and three
            sharpened HR images.
        negatives: mappings or sample generators. Default: four blurred HR images, the
            enlarged LR image, and the SR image under a periodic pattern, which is ours.
        seed: seed of the samples' randomness.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper: whether the embedding's grid moves from step to step, so
            that dots that repeat with it do not go unnoticed.
        every: apply the term, and train the embedding, only once in this many steps; the term's weight is this many
            times as large there.

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
        train_embedding: bool | int | None = None,
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
