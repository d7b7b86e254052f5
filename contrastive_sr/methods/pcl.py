"""PCL-SR: "A Practical Contrastive Learning Framework for Single Image Super-Resolution" (arXiv 2111.13924)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.distributed import average_statistics_over_ranks
from contrastive_sr.embeddings import EMBEDDINGS, Embedding, TrainableEmbedding, training_mode
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import DualContrastiveLoss, PCLLoss
from contrastive_sr.methods.base import Method, Term
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SAMPLES, Batch, SampleGenerator

SampleConfig = Mapping[str, object] | SampleGenerator


class PCL(Method):
    """PCL-SR: contrast of the SR image with sharpened positives and blurred negatives, in a space learnt alongside.

    At each step the embedding first learns to tell HR from (detached) SR images by eq. 7, over the batches of all
    ranks; then, frozen, it gives the contrastive term of eq. 8 to 10. HR and SR images share one pass, and so one
    normalisation, when it trains; in the contrastive term all images see its running statistics, unmoved.

    Terms: ``contrastive``. Figures: ``positive_similarity``, ``negative_similarity``.

    Args:
        loss_weight: fixed weight of the term. The paper's 0.1 is for images in [0, 255]; for ours it is 0.1 / 255.
        loss_share: instead, the share of the pixel loss's gradient to keep, e.g. 0.05.
        temperature: tau, above 0; the paper names none and used 1.
        embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding. Its choices are the rows of
            Table IV: ``VGGFeatures`` (config 1), ``RGBDiscriminator`` (2), ``HaarDiscriminator`` (3),
            ``FourierDiscriminator`` (5).
        train_embedding: whether the embedding learns. None: if it can. False with ``weights`` in the embedding is
            PCL-F (Table V).
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators. Default: HR and
            three sharpened, four in all.
        negatives: likewise. Default: four blurred.
        seed: seed of the samples' randomness.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of the share to the next.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> method = PCL(loss_weight=0.1 / 255)
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(method.auxiliary_losses(batch))
        ['pcl_discriminator']
    """

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 1.0,
        embedding: Mapping[str, object] | Embedding | None = None,
        train_embedding: bool | None = None,
        positives: Sequence[SampleConfig] = ({"type": "HighResolution"}, {"type": "Sharpen", "count": 3}),
        negatives: Sequence[SampleConfig] = ({"type": "GaussianBlur", "count": 4},),
        seed: int = 0,
        name: str = "pcl",
        share_interval: int = 25,
    ) -> None:
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share, share_interval)
        super().__init__(name, seed, {"contrastive": weight})
        self.positives = _build_samples(positives, f"{name}: positives")
        self.negatives = _build_samples(negatives, f"{name}: negatives")
        embedding = {"type": "HaarDiscriminator"} if embedding is None else embedding
        network = build(Embedding, EMBEDDINGS, embedding, f"{name}: embedding")
        self.loss = PCLLoss(network, temperature)
        self.discriminator_loss = DualContrastiveLoss(gather=True)
        can_train = isinstance(network, TrainableEmbedding)
        if not isinstance(train_embedding, (bool, type(None))):
            raise ConfigError(f"{name}: train_embedding: expected true or false, got {describe(train_embedding)}.")
        if train_embedding and not can_train:
            raise ConfigError(
                f"{name}: {type(network).__name__} cannot be trained; leave out train_embedding, or choose "
                "HaarDiscriminator."
            )
        self.trains_embedding = can_train if train_embedding is None else train_embedding
        if not self.trains_embedding:
            network.requires_grad_(False)
            if can_train and isinstance(embedding, Mapping) and embedding.get("weights") is None:
                warnings.warn(
                    f"{name}: train_embedding is false and the embedding has no `weights`: its features are random. "
                    "For PCL-F give the file of a trained embedding.",
                    stacklevel=2,
                )

    @property
    def embedding(self) -> Embedding:
        """The embedding network."""
        network = self.loss.embedding
        assert isinstance(network, Embedding)
        return network

    def check_batch(self, batch: Batch) -> None:
        """Also refuse HR patches that the embedding cannot take; see :meth:`Method.check_batch`."""
        super().check_batch(batch)
        self.embedding.check_size(*batch["hr"].shape[-2:])

    def trained_parts(self) -> dict[str, nn.Module]:
        """The embedding, if it is trained: frozen in another training it is PCL-F (Table V)."""
        return {f"{self.name}_embedding": self.embedding} if self.trains_embedding else {}

    def auxiliary_terms(self, batch: Batch) -> dict[str, Tensor]:
        """``discriminator``: eq. 7 on HR and detached SR images; nothing if the embedding is fixed.

        Args:
            batch: what :meth:`run` returned.
        """
        if not self.trains_embedding:
            return {}
        embedding = self.embedding
        assert isinstance(embedding, TrainableEmbedding)
        with training_mode(embedding, True):
            logits = embedding.logits(torch.cat((batch["hr"].to(batch["sr"]), batch["sr"].detach())))
        return {"discriminator": self.discriminator_loss(*logits.chunk(2))}

    def terms(self, batch: Batch) -> dict[str, Term]:
        """The contrastive term, eq. 8 to 10.

        Args:
            batch: what :meth:`run` returned.
        """
        if self.trains_embedding:  # here, because a backward pass needs them unchanged
            average_statistics_over_ranks(self.embedding)
        # Not under autocast: half precision would change the images more than the slightest blur does.
        with torch.no_grad(), torch.autocast(batch["hr"].device.type, enabled=False):
            generator = self.generator(batch["hr"].device)
            positives = torch.cat([sample(batch, generator) for sample in self.positives], dim=1)
            negatives = torch.cat([sample(batch, generator) for sample in self.negatives], dim=1)
        contrast = self.loss.contrast(batch["sr"], positives, negatives)
        figures = {
            "positive_similarity": contrast.positive_similarity.mean(),
            "negative_similarity": contrast.negative_similarity.mean(),
        }
        return {"contrastive": Term(contrast.loss, figures)}


def _build_samples(configs: Sequence[SampleConfig], where: str) -> list[SampleGenerator]:
    """Build sample generators.

    Raises:
        ConfigError: not a list, or an empty one.
    """
    if not isinstance(configs, Sequence) or isinstance(configs, str) or not configs:
        raise ConfigError(
            f"{where}: expected a list with at least one of {', '.join(SAMPLES)}, e.g. "
            f"[{{type: Sharpen, count: 3}}]; got {describe(configs)}."
        )
    return [build(SampleGenerator, SAMPLES, config, f"{where}[{index}]") for index, config in enumerate(configs)]
