"""What methods share whose loss is between the SR image and images to be close to and far from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from contrastive_sr.functional.embedded import Similarity
from contrastive_sr.losses import Contrast, ImageContrastLoss
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.embedding import EmbeddingConfig, EmbeddingMethod
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, SampleConfig, draw

QUANTITIES = {"cosine": "cosine, mean over positions and layers", "dot": "dot product, mean over layers"}


class ImageMethod(EmbeddingMethod):
    """A method whose term is an :class:`~contrastive_sr.losses.ImageContrastLoss` over samples drawn at each step.

    Args:
        name: prefix of everything that is logged.
        seed: seed of the samples' randomness.
        weight: of the term.
        embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding.
        train_embedding: whether it learns. None: if it can.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators.
        negatives: mappings or sample generators, as ``positives``.
        temperature: tau, above 0.
        similarity: ``"cosine"`` or ``"dot"``.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.
    """

    metrics = {"contrastive": ("positive_similarity", "negative_similarity")}  # noqa: RUF012 - never changed

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        weight: TermWeight,
        embedding: EmbeddingConfig,
        train_embedding: bool | None,
        positives: Sequence[SampleConfig],
        negatives: Sequence[SampleConfig],
        temperature: float,
        similarity: Similarity = "cosine",
    ) -> None:
        super().__init__(
            name,
            seed=seed,
            weight=weight,
            embedding=embedding,
            train_embedding=train_embedding,
            positives=positives,
            negatives=negatives,
        )
        self.loss = ImageContrastLoss(self.embedding, temperature=temperature, similarity=similarity)

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The contrastive term, over the samples of this step."""
        generator = step.generator(batch["hr"].device)
        positives, negatives = draw(self.positives, batch, generator), draw(self.negatives, batch, generator)
        return {"contrastive": self.loss.contrast(batch["sr"], positives, negatives)}

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """The SR image with the samples of this step; see :meth:`Method.compared`."""
        samples = self.named_samples(batch, step)
        sr = batch["sr"][:1].detach()
        images = torch.stack([image for _, _, image in samples])[None].to(sr.dtype)
        count = sum(role == "positive" for _, role, _ in samples)
        similarities = self.loss.similarities(sr, images[:, :count], images[:, count:])[0]
        parts = self.shown([("SR", "anchor", sr[0]), *samples], [None, *similarities.tolist()])
        return [Comparison("contrastive", QUANTITIES[self.loss.similarity], parts, self.untrained(step))]
