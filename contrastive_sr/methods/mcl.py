"""MCL: "Learning from History: Task-agnostic Model Contrastive Learning for Image Restoration" (arXiv 2309.06023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.embedded import check_layer_weights
from contrastive_sr.losses import Contrast, FeatureDistanceLoss
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.embedding import EmbeddingConfig, EmbeddingMethod, Phase
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, PastOutput, SampleConfig, SampleGenerator, draw

# Those of the released options.
VGG_16 = {"type": "VGGFeatures", "model": "vgg16", "layers": ("relu1_2", "relu2_2", "relu3_3")}
VGG_16_WEIGHTS = (0.2, 0.3, 0.5)
PAST = ({"type": "PastOutput"},)


@register_method
class MCL(EmbeddingMethod):
    """Model Contrastive Learning: away from the images of the network's own past; or plain feature matching.

    The term is the L1 distance of the SR image to its positives in the space of an embedding, minus that to its
    negatives (:class:`~contrastive_sr.losses.FeatureDistanceLoss`). The paper has no positives: its loss is the pixel
    loss minus this distance to the images of one or more past versions of the network.
    ``positives: [{type: HighResolution}]`` with ``negatives: []`` is a perceptual loss, in any embedding, also in one
    that learns alongside; both together are a contrast. The embedding, the layers and their weights are those of the
    released options, which are for dehazing and give the term a weight of 0.001;
    :class:`~contrastive_sr.samples.PastOutput` says how our past versions differ.

    In the first step a past version is the network itself, and is left out: between equal images the direction of the
    distance's gradient is only rounding error. An embedding that can learn is trained like that of
    :class:`~contrastive_sr.methods.PCL`. The distance to negatives has no bound and a gradient that does not shrink
    with it: keep its share well below 1.

    Terms: ``contrastive``. Metrics: ``positive_distance`` and ``negative_distance``, where there are such images.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given, the
            share is 0.05.
        embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding. None: ``relu1_2``, ``relu2_2``
            and ``relu3_3`` of VGG-16, whose weights are downloaded once.
        train_embedding: whether the embedding learns; a whole number: only in the first so many steps of the training,
            as far as the method takes part in them. None: it learns if it can.
        layer_weights: one number of at least 0 for each layer of the embedding. None: 0.2, 0.3 and 0.5 with the default
            embedding, else 1 over the number of layers.
        positives: mappings such as ``{"type": "HighResolution"}``, or sample generators; ``[]`` for none, the default.
        negatives: mappings or sample generators; ``[]`` for none. Default: one past version of the network.
        seed: seed of the samples' randomness.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper; see :class:`~contrastive_sr.methods.PCL`.
        every: apply the term, and train the embedding, only once in this many steps; the term's weight is this many
            times as large there. The past versions follow the network at each step all the same.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> from contrastive_sr.methods import Methods
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.PixelShuffle(4))
        >>> methods = Methods([MCL(embedding={"type": "HaarDiscriminator"}, train_embedding=True)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 8, 8), "hr": torch.rand(2, 3, 32, 32)})
        >>> list(methods.auxiliary_losses(batch))
        ['mcl_discriminator']
    """

    paper = "Model Contrastive Learning"

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | int | None = None,
        layer_weights: Sequence[float] | None = None,
        positives: Sequence[SampleConfig] = (),
        negatives: Sequence[SampleConfig] = PAST,
        seed: int = 0,
        name: str = "mcl",
        share_interval: int = 5,
        phase: Phase = "random",
        every: int = 1,
    ) -> None:
        check_layer_weights(layer_weights, f"{name}: layer_weights")
        none = [samples is None or samples in ([], ()) for samples in (positives, negatives)]
        if all(none):
            raise ConfigError(f"{name}: positives, negatives: expected at least one sample in one of them, got none.")
        if embedding is None:
            embedding = VGG_16
            layer_weights = VGG_16_WEIGHTS if layer_weights is None else layer_weights
        super().__init__(
            name,
            seed=seed,
            weight=TermWeight(f"{name}_contrastive", loss_weight, loss_share, interval=share_interval),
            embedding=embedding,
            train_embedding=train_embedding,
            positives=None if none[0] else positives,
            negatives=None if none[1] else negatives,
            phase=phase,
            every=every,
        )
        layers = len(self.embedding.channels())
        if layer_weights is not None and len(layer_weights) != layers:
            raise ConfigError(
                f"{name}: layer_weights: expected one number for each of the {layers} layers of "
                f"{type(self.embedding).__name__}, got {len(layer_weights)}."
            )
        self.loss = FeatureDistanceLoss(self.embedding, layer_weights=layer_weights)
        roles = (("positive_distance", self.positives), ("negative_distance", self.negatives))
        self.metrics = {"contrastive": [metric for metric, samples in roles if samples]}

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The contrastive term, over the samples of this step; without past versions that are the network itself."""
        negatives = [s for s in self.negatives if not isinstance(s, PastOutput) or s.differs(step.number)]
        if not self.positives and not negatives:
            return {}
        generator = step.generator(batch["hr"].device)

        def images(samples: Sequence[SampleGenerator]) -> Tensor | None:
            return self.shifted(draw(samples, batch, generator), batch, step) if samples else None

        sr = self.shifted(batch["sr"], batch, step)
        return {"contrastive": self.loss.contrast(sr, images(self.positives), images(negatives))}

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """The SR image with the samples of this step; see :meth:`Method.compared`."""
        samples = self.named_samples(batch, step)
        sr = batch["sr"][:1].detach()
        images = torch.stack([image for _, _, image in samples])[None].to(sr.dtype)
        distances = self.loss.distances(sr, images)[0]
        parts = self.shown([("SR", "anchor", sr[0]), *samples], [None, *distances.tolist()])
        return [Comparison("contrastive", "L1 distance, weighted over the layers", parts, self.untrained(step))]
