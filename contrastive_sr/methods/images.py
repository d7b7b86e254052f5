"""What the methods share that compare the SR image with images to be close to and images to be far from."""

from __future__ import annotations

import torch
from torch import Tensor

from contrastive_sr.losses import Contrast, ImageContrastLoss
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.embedding import EmbeddingMethod
from contrastive_sr.samples import Batch, draw

QUANTITIES = {"cosine": "cosine, mean over positions and layers", "dot": "dot product, mean over layers"}


class ImageMethod(EmbeddingMethod):
    """A method whose term is an :class:`~contrastive_sr.losses.ImageContrastLoss` over samples drawn at each step.

    A subclass sets ``loss``, with :attr:`embedding` in it.
    """

    loss: ImageContrastLoss
    metrics = {"contrastive": ("positive_similarity", "negative_similarity")}  # noqa: RUF012 - never changed

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The contrastive term, over the samples of this step."""
        images = (self.shifted(x, batch, step) for x in (batch["sr"], *self.drawn(batch, step)))
        return {"contrastive": self.loss.contrast(*images)}

    def drawn(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """Positives (B, P, 3, H, W) and negatives (B, N, 3, H, W) of this step, the same at every call."""
        generator = step.generator(batch["hr"].device)
        return draw(self.positives, batch, generator), draw(self.negatives, batch, generator)

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """The SR image with the samples of this step; see :meth:`Method.compared`."""
        samples = self.named_samples(batch, step)
        sr = batch["sr"][:1].detach()
        images = torch.stack([image for _, _, image in samples])[None].to(sr.dtype)
        count = sum(role == "positive" for _, role, _ in samples)
        similarities = self.loss.similarities(sr, images[:, :count], images[:, count:])[0]
        parts = self.shown([("SR", "anchor", sr[0]), *samples], [None, *similarities.tolist()])
        return [Comparison("contrastive", QUANTITIES[self.loss.similarity], parts, self.untrained(step))]
