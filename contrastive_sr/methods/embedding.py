"""What methods share whose contrast is in the space of an embedding, which may learn alongside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.embeddings import EMBEDDINGS, Embedding, TrainableEmbedding, training_mode
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import Contrast, DualContrastiveLoss
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Compared
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, SampleConfig, SampleGenerator, TeacherOutput, build_samples, draw

EmbeddingConfig = Mapping[str, object] | Embedding
HIGH_RESOLUTION = ({"type": "HighResolution"},)
SHARPENED = (*HIGH_RESOLUTION, {"type": "Sharpen", "count": 3})
UPSAMPLED = ({"type": "UpsampledLowResolution"},)
BLURRED = ({"type": "GaussianBlur", "count": 4},)


class EmbeddingMethod(Method):
    """A method with one term, ``contrastive``, over an embedding, positives and negatives.

    An embedding that can learn is trained as PCL-SR does: at each step, before the SR network's, it learns to tell HR
    from (detached) SR images by eq. 7, over the batches of all ranks. HR and SR images share one pass, and so one
    normalisation, when it trains; in the contrastive term all images see its running statistics, unmoved.

    A subclass makes the embedding part of a module of its own, and gives :meth:`terms`.

    Attributes:
        trains_embedding: whether the embedding learns.

    Args:
        name: prefix of everything that is logged.
        seed: seed of the samples' randomness.
        weight: of the term.
        embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding. None: that one.
        train_embedding: whether it learns. None: if it can.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators; None for a method that
            has none.
        negatives: likewise.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        weight: TermWeight,
        embedding: EmbeddingConfig | None,
        train_embedding: bool | None,
        positives: Sequence[SampleConfig] | None,
        negatives: Sequence[SampleConfig] | None = None,
    ) -> None:
        super().__init__(name, seed=seed, weights={"contrastive": weight})
        self.positives = [] if positives is None else build_samples(positives, f"{name}: positives")
        self.negatives = [] if negatives is None else build_samples(negatives, f"{name}: negatives")
        self.samples = nn.ModuleList(sample for sample in self._samples() if isinstance(sample, nn.Module))
        self.discriminator_loss = DualContrastiveLoss(gather=True)
        embedding = {"type": "HaarDiscriminator"} if embedding is None else embedding
        network = build(EMBEDDINGS, embedding, f"{name}: embedding")
        can_train = isinstance(network, TrainableEmbedding)
        if not isinstance(train_embedding, (bool, type(None))):
            raise ConfigError(f"{name}: train_embedding: expected true or false, got {describe(train_embedding)}.")
        if train_embedding and not can_train:
            raise ConfigError(
                f"{name}: {type(network).__name__} cannot be trained; leave out train_embedding, or choose "
                "HaarDiscriminator."
            )
        self.trains_embedding = can_train if train_embedding is None else train_embedding
        self._is_new = can_train and isinstance(embedding, Mapping) and embedding.get("weights") is None
        if not self.trains_embedding:
            network.requires_grad_(False)
            if self._is_new:
                warnings.warn(
                    f"{name}: the embedding does not learn and has no `weights`: its features are random. Give it "
                    "the file of a trained one (PCL-F).",
                    stacklevel=3,
                )
        self._embedding = (network,)  # in a tuple: the subclass says of which module it is a part

    @property
    def embedding(self) -> Embedding:
        """The embedding network."""
        return self._embedding[0]

    def build(self, net: nn.Module, dry: Batch) -> None:
        """Show the samples the SR network; see :meth:`Method.build`."""
        for sample in self._samples():
            sample.attach(net)

    def follow(self, net: nn.Module, step: Step) -> None:
        """Show the samples what became of the SR network; see :meth:`Method.follow`."""
        for sample in self._samples():
            sample.follow(net, step.number)

    def _samples(self) -> list[SampleGenerator]:
        return [*self.positives, *self.negatives]

    def check_batch(self, batch: Batch) -> None:
        """Refuse images that embedding or samples cannot take; see :meth:`Method.check_batch`."""
        self.embedding.check_size(*batch["hr"].shape[-2:])
        generator = Step(0).generator(batch["hr"].device)
        for sample in self._samples():
            if not draw([sample], batch, generator).isfinite().all():
                of = f" of the teacher, {type(sample.network).__name__}" if isinstance(sample, TeacherOutput) else ""
                raise DataError(
                    f"{self.name}: expected finite images from {type(sample).__name__}, got NaN or infinity{of}. Check "
                    "its settings and weights."
                )

    def trained_parts(self) -> dict[str, nn.Module]:
        """The embedding, if it is trained: frozen in another training it is PCL-F (Table V)."""
        return {f"{self.name}_embedding": self.embedding} if self.trains_embedding else {}

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``discriminator``: eq. 7 on HR and detached SR images; nothing if the embedding is fixed."""
        if not self.trains_embedding:
            return {}
        embedding = self.embedding
        assert isinstance(embedding, TrainableEmbedding)
        with training_mode(embedding, True):
            logits = embedding.logits(torch.cat((batch["hr"].to(batch["sr"]), batch["sr"])))
        return {"discriminator": Contrast(self.discriminator_loss(*logits.chunk(2)))}

    # ------------------------------------------------------------------------------------------ for a person to look at

    def untrained(self, step: Step) -> str:
        """What has the random weights it began with, as far as this method knows; empty if nothing has."""
        return "untrained embedding" if self._is_new and step.number == 0 else ""

    def named_samples(self, batch: Batch, step: Step) -> list[tuple[str, str, Tensor]]:
        """Label, role and image (3, H, W) of each positive and negative that this step draws for the first image."""
        generator = step.generator(batch["hr"].device)
        images = draw(self._samples(), batch, generator)[0]
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
