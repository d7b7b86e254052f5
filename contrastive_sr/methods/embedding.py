"""What methods share whose contrast is between images in an embedding, which may learn alongside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.distributed import average_statistics_over_ranks
from contrastive_sr.embeddings import EMBEDDINGS, Embedding, TrainableEmbedding, training_mode
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import ContrastiveRegularizationLoss, DualContrastiveLoss, PCLLoss
from contrastive_sr.methods.base import Method, Term
from contrastive_sr.methods.compared import Compared, Comparison
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, SampleConfig, TeacherOutput, build_samples, draw

EmbeddingConfig = Mapping[str, object] | Embedding


class EmbeddingMethod(Method):
    """A method with one term, ``contrastive``, over an embedding, positives and negatives.

    An embedding that can learn is trained as PCL-SR does: at each step, before the SR network's, it learns to tell HR
    from (detached) SR images by eq. 7, over the batches of all ranks. HR and SR images share one pass, and so one
    normalisation, when it trains; in the contrastive term all images see its running statistics, unmoved.

    A subclass hands the network of :meth:`build_embedding` to whatever module of it holds the embedding.

    Args:
        name: prefix of everything that is logged.
        seed: seed of the samples' randomness.
        weight: of the term; None for a method that is set to have none.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators; None where a method has
            none of its own.
        negatives: likewise.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        weight: TermWeight | None,
        positives: Sequence[SampleConfig] | None,
        negatives: Sequence[SampleConfig] | None,
    ) -> None:
        super().__init__(name, seed, {} if weight is None else {"contrastive": weight})
        self.positives = [] if positives is None else build_samples(positives, f"{name}: positives")
        self.negatives = [] if negatives is None else build_samples(negatives, f"{name}: negatives")
        self.discriminator_loss = DualContrastiveLoss(gather=True)
        self.trains_embedding = False
        self._new_embedding = False

    def build_embedding(self, embedding: EmbeddingConfig | None, train_embedding: bool | None) -> Embedding:
        """Build the embedding, and settle whether it learns.

        Args:
            embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding. None: that one.
            train_embedding: whether it learns. None: if it can.

        Raises:
            ConfigError: an embedding that is unknown, or that cannot learn and should.
        """
        embedding = {"type": "HaarDiscriminator"} if embedding is None else embedding
        network = build(Embedding, EMBEDDINGS, embedding, f"{self.name}: embedding")
        can_train = isinstance(network, TrainableEmbedding)
        if not isinstance(train_embedding, (bool, type(None))):
            raise ConfigError(f"{self.name}: train_embedding: expected true or false, got {describe(train_embedding)}.")
        if train_embedding and not can_train:
            raise ConfigError(
                f"{self.name}: {type(network).__name__} cannot be trained; leave out train_embedding, or choose "
                "HaarDiscriminator."
            )
        self.trains_embedding = can_train if train_embedding is None else train_embedding
        self._new_embedding = can_train and isinstance(embedding, Mapping) and embedding.get("weights") is None
        if not self.trains_embedding:
            network.requires_grad_(False)
            if self._new_embedding:
                warnings.warn(
                    f"{self.name}: the embedding does not learn and has no `weights`: its features are random. Give it "
                    "the file of a trained one (PCL-F).",
                    stacklevel=3,
                )
        return network

    @property
    def embedding(self) -> Embedding:
        """The embedding network."""
        raise NotImplementedError

    @property
    def untrained(self) -> str:
        """What has the random weights it began with, as far as this method knows; empty if nothing has."""
        return "untrained embedding" if self._new_embedding and self.step.value == 0 else ""

    def named_samples(self, batch: Batch) -> list[tuple[str, str, Tensor]]:
        """Label, role and image (3, H, W) of each positive and negative that this step draws for the first image."""
        generator = self.generator(batch["hr"].device)
        images = draw([*self.positives, *self.negatives], batch, generator)[0]
        labels = [
            (f"{type(sample).__name__} {number + 1}" if sample.count > 1 else type(sample).__name__, role)
            for role, samples in (("positive", self.positives), ("negative", self.negatives))
            for sample in samples
            for number in range(sample.count)
        ]
        return [(label, role, image) for (label, role), image in zip(labels, images, strict=True)]

    def shown(self, images: Sequence[tuple[str, str, Tensor]], similarities: Sequence[float | None]) -> list[Compared]:
        """Images (3, H, W) by label and role, with their bands in the embedding."""
        clamped = torch.stack([image.to(images[0][2]) for _, _, image in images]).clamp(0, 1)
        bands = self.embedding.bands(clamped)
        return [
            Compared(label, role, clamped[n], similarity, {name: band[n] for name, band in bands.items()})
            for n, ((label, role, _), similarity) in enumerate(zip(images, similarities, strict=True))
        ]

    def check_batch(self, batch: Batch) -> None:
        """Also refuse images that embedding or samples cannot take; see :meth:`Method.check_batch`."""
        super().check_batch(batch)
        self.embedding.check_size(*batch["hr"].shape[-2:])
        generator = self.generator(batch["hr"].device)
        for sample in (*self.positives, *self.negatives):
            if not draw([sample], batch, generator).isfinite().all():
                of = f" of the teacher, {type(sample.network).__name__}" if isinstance(sample, TeacherOutput) else ""
                raise DataError(
                    f"{self.name}: expected finite images from {type(sample).__name__}, got NaN or infinity{of}. Check "
                    "its settings and weights."
                )

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

    def share_statistics(self) -> None:
        """Let every rank embed alike; in :meth:`terms`, because the embedding's backward pass needs them unchanged."""
        if self.trains_embedding:
            average_statistics_over_ranks(self.embedding)


class ImageMethod(EmbeddingMethod):
    """A method whose loss is between the SR image and images to be close to and far from.

    Attributes:
        measure: what its similarities are.
    """

    measure = "cosine, mean over positions and layers"

    loss: PCLLoss | ContrastiveRegularizationLoss

    @property
    def embedding(self) -> Embedding:
        """The embedding network."""
        network = self.loss.embedding
        assert isinstance(network, Embedding)
        return network

    def compared(self, batch: Batch) -> list[Comparison]:
        """The SR image with the samples of this step; see :meth:`Method.compared`."""
        samples = self.named_samples(batch)
        sr = batch["sr"][:1].detach()
        images = torch.stack([image for _, _, image in samples])[None].to(sr.dtype)
        count = sum(role == "positive" for _, role, _ in samples)
        contrast = self.loss.contrast(sr, images[:, :count], images[:, count:])
        similarities = torch.cat((contrast.positive_similarity, contrast.negative_similarity), dim=1)[0]
        parts = self.shown([("SR", "anchor", sr[0]), *samples], [None, *similarities.tolist()])
        return [Comparison("contrastive", self.measure, parts, self.untrained)]

    def terms(self, batch: Batch) -> dict[str, Term]:
        """The contrastive term, over the samples of this step.

        Args:
            batch: what :meth:`run` returned.
        """
        self.share_statistics()
        generator = self.generator(batch["hr"].device)
        positives, negatives = draw(self.positives, batch, generator), draw(self.negatives, batch, generator)
        contrast = self.loss.contrast(batch["sr"], positives, negatives)
        figures = {
            "positive_similarity": contrast.positive_similarity.mean(),
            "negative_similarity": contrast.negative_similarity.mean(),
        }
        return {"contrastive": Term(contrast.loss, figures)}
