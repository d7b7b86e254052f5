"""PCL-SR: "A Practical Contrastive Learning Framework for Single Image Super-Resolution" (arXiv 2111.13924)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr._checks import check_flag
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import ImageContrastLoss
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.embedding import BLURRED, PATTERNED, SHARPENED, EmbeddingConfig, Phase
from contrastive_sr.methods.images import ImageMethod
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, SampleConfig

SHARE, EVERY = 1.0, 4  # measured: benchmarks/studies/frontier.yml, inside.yml


@register_method
class PCL(ImageMethod):
    """PCL-SR: contrast of the SR image with sharpened positives and blurred negatives, in a space learnt alongside.

    In a step that it takes part in, the embedding first learns to tell HR from (detached) SR images by eq. 7, over the
    batches of all ranks; then, frozen, it gives the contrastive term of eq. 8 to 10. When it trains, HR and SR images
    share one pass, and so one normalisation; in the contrastive term all images are normalised by its running
    statistics, which that term does not change.

    At a share that is large enough to have a visible effect, the paper's form covers flat areas with dots, which
    perceptual metrics reward. Against that are two defaults of ours, the random phase, and one negative that is the SR
    image with dots on it; they do not prevent it in every training. A third, the undecimated Haar transform in the
    embedding, makes a share stronger; a fourth, ``every=4``, makes a step cheaper. The paper's are
    ``embedding={"type": "HaarDiscriminator"}``, ``phase="fixed"``,
    ``negatives=[{"type": "GaussianBlur", "count": 4}]`` and ``every=1``.

    Terms: ``contrastive``. Metrics: ``positive_similarity``, ``negative_similarity``.

    Args:
        loss_weight: fixed weight of the term. The paper's 0.1 is, we think, for images in [0, 255]; for ours it is
            0.1 / 255.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep: the norm of the weighted
            term's gradient at the SR image, divided by that of the pixel loss's gradient. If neither is given, the
            share is 1, which made images sharper at a cost of about 0.1 dB in our runs; the paper's weight is a share
            of about 0.01.
        temperature: tau, above 0; the paper gives no value; 1 is our reading.
        embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding. None:
            :class:`~contrastive_sr.embeddings.StationaryHaarDiscriminator`. The choices are the rows of
            Table IV: ``VGGFeatures`` (config 1), ``RGBDiscriminator`` (2), ``HaarDiscriminator`` (3),
            ``FourierDiscriminator`` (5). ``TimmFeatures`` is any network of timm.
        train_embedding: whether the embedding learns; a whole number: only in the first so many steps of the training,
            as far as the method takes part in them. None: it learns if it can. False with ``weights`` in
            the embedding is PCL-F (Table V).
        train_on_samples: whether the embedding learns to tell positives (HR among them) from SR images and negatives,
            as in the authors' script for RCAN, instead of HR from SR images. It sees several times as many images.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators. Default: HR and three
            sharpened HR images, four in all.
        negatives: mappings or sample generators. Default: four blurred HR images, as in the paper, and the SR image
            under a periodic pattern, which is ours.
        seed: seed of the samples' randomness.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper: whether the embedding's grid moves from step to step, so
            that dots that repeat with it do not go unnoticed.
        every: apply the term, and train the embedding, only once in this many steps, beginning with the first; the
            term's weight is this many times as large there. The paper's is 1.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> net, methods = torch.nn.Upsample(scale_factor=4), Methods([PCL(loss_weight=0.1 / 255)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['pcl_discriminator']
    """

    paper = "PCL-SR"

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 1.0,
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | int | None = None,
        train_on_samples: bool = False,
        positives: Sequence[SampleConfig] = SHARPENED,
        negatives: Sequence[SampleConfig] = (*BLURRED, *PATTERNED),
        seed: int = 0,
        name: str = "pcl",
        share_interval: int = 5,
        phase: Phase = "random",
        every: int = EVERY,
    ) -> None:
        if loss_weight is None and loss_share is None:
            loss_share = SHARE
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
        self.loss = ImageContrastLoss(self.embedding, temperature=temperature)
        self.train_on_samples = check_flag(train_on_samples, f"{name}: train_on_samples")
        if train_on_samples and not self.trains_embedding:
            raise ConfigError(f"{name}: train_on_samples: the embedding does not learn. Leave it out.")

    def discriminated(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """As in other methods, or the samples as well."""
        if not self.train_on_samples:
            return super().discriminated(batch, step)
        positives, negatives = (samples.flatten(0, 1).to(batch["sr"]) for samples in self.drawn(batch, step))
        return positives, torch.cat((batch["sr"], negatives))
