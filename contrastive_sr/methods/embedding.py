"""What the methods share that contrast in the space of an embedding, which may learn alongside."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr._checks import check_choice, check_count, describe
from contrastive_sr._random import seed_of
from contrastive_sr.config import build
from contrastive_sr.embeddings import EMBEDDINGS, Embedding, TrainableEmbedding, training_mode
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import Contrast, DualContrastiveLoss
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Compared
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, SampleConfig, SampleGenerator, TeacherOutput, build_samples, draw

EmbeddingConfig = Mapping[str, object] | Embedding
Phase = Literal["random", "fixed"]
HIGH_RESOLUTION = ({"type": "HighResolution"},)
SHARPENED = (*HIGH_RESOLUTION, {"type": "Sharpen", "count": 3})
UPSAMPLED = ({"type": "UpsampledLowResolution"},)
BLURRED = ({"type": "GaussianBlur", "count": 4},)
PATTERNED = ({"type": "PeriodicPattern"},)
DEFAULT = {"type": "StationaryHaarDiscriminator"}


class EmbeddingMethod(Method):
    """A method with one term, ``contrastive``, over an embedding, positives and negatives.

    An embedding that can learn is trained as PCL-SR does: before the SR network's step, it learns to tell HR from
    (detached) SR images by eq. 7, over the batches of all ranks. When it trains, HR and SR images share one pass,
    and so one normalisation; in the contrastive term all images are normalised by its running statistics, which that
    term does not change.

    An embedding with strides, or with the decimated Haar transform, sees an image on a grid of its own. If that grid
    always has the same position on the SR image, a network can satisfy the embedding with a pattern of dots that
    repeats with the grid, and only a pixel loss opposes it. With the phase ``"random"``, which is ours, all images of a
    step's comparison, and those that the embedding learns from, are moved by one offset that is drawn anew at each
    step. ``"fixed"`` is what the papers do. :class:`~contrastive_sr.embeddings.StationaryHaarDiscriminator` has a finer
    grid, and :class:`~contrastive_sr.samples.PeriodicPattern` as a negative opposes dots itself.

    A subclass makes the embedding part of a module of its own, and defines :meth:`terms`.

    Attributes:
        trains_embedding: whether the embedding learns.
        embedding_ends: how many steps there are until it stops learning, infinity if it does not.

    Args:
        name: prefix of everything that is logged.
        seed: seed of the samples' randomness.
        weight: weight of the term.
        embedding: a mapping such as ``{"type": "HaarDiscriminator"}``, or an embedding. None:
            ``StationaryHaarDiscriminator``.
        train_embedding: whether it learns; a whole number: only in the first so many steps of the training, as far as
            the method takes part in them. None: it learns if it can.
        positives: mappings such as ``{"type": "Sharpen", "count": 3}``, or sample generators; None for a method that
            has none.
        negatives: mappings or sample generators; None for a method that has none.
        phase: ``"random"`` or ``"fixed"``.
        every: apply the term only once in this many steps.

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
        train_embedding: bool | int | None,
        positives: Sequence[SampleConfig] | None,
        negatives: Sequence[SampleConfig] | None = None,
        phase: Phase,
        every: int,
    ) -> None:
        super().__init__(name, seed=seed, weights={"contrastive": weight}, every=every)
        check_choice(phase, get_args(Phase), f"{name}: phase")
        self.phase: Phase = phase
        self.positives = [] if positives is None else build_samples(positives, f"{name}: positives")
        self.negatives = [] if negatives is None else build_samples(negatives, f"{name}: negatives")
        self.samples = nn.ModuleList(sample for sample in self._samples() if isinstance(sample, nn.Module))
        self.discriminator_loss = DualContrastiveLoss(gather=True)
        embedding = DEFAULT if embedding is None else embedding
        network = build(EMBEDDINGS, embedding, f"{name}: embedding")
        is_frozen = {p.requires_grad for p in network.parameters()} == {False}
        can_train = isinstance(network, TrainableEmbedding) and not is_frozen
        self.embedding_ends = math.inf
        if isinstance(train_embedding, int) and not isinstance(train_embedding, bool):
            self.embedding_ends = check_count(train_embedding, f"{name}: train_embedding")
        elif not isinstance(train_embedding, (bool, type(None))):
            raise ConfigError(
                f"{name}: train_embedding: expected true, false or a number of steps, got {describe(train_embedding)}."
            )
        if train_embedding and not can_train:
            why = "is frozen" if isinstance(network, TrainableEmbedding) else "cannot be trained"
            raise ConfigError(
                f"{name}: {type(network).__name__} {why}; leave out train_embedding, or choose an embedding that "
                "learns, such as HaarDiscriminator."
            )
        self.trains_embedding = can_train if train_embedding is None else bool(train_embedding)
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
        """Show the samples the current state of the SR network; see :meth:`Method.follow`."""
        for sample in self._samples():
            sample.follow(net, step.number)

    def _samples(self) -> list[SampleGenerator]:
        return [*self.positives, *self.negatives]

    def check_batch(self, batch: Batch) -> None:
        """Refuse images that embedding or samples cannot take; see :meth:`Method.check_batch`."""
        self.embedding.check_size(*batch["hr"].shape[-2:])
        side = min(batch["hr"].shape[-2:])
        if self.phase == "random" and side < (least := _offsets(batch)):
            raise DataError(
                f"{self.name}: expected HR images of at least {least} px a side, over which the random phase moves "
                f"them, got {side}. Take larger ones, or phase: fixed."
            )
        generator = Step(0).generator(batch["hr"].device)
        batch = {"sr": batch["hr"], **batch}  # the network has not been run yet
        for sample in self._samples():
            if not draw([sample], batch, generator).isfinite().all():
                of = f" of the teacher, {type(sample.network).__name__}" if isinstance(sample, TeacherOutput) else ""
                raise DataError(
                    f"{self.name}: expected finite images from {type(sample).__name__}, got NaN or infinity{of}. Check "
                    "its settings and weights."
                )

    def shifted(self, images: Tensor, batch: Batch, step: Step) -> Tensor:
        """Images moved by the offset of this step, down and to the right; as they are with the phase ``"fixed"``.

        A network's pixel shuffle has the period of the scale, or 2 in stages of 2; the offsets are even over both, and
        over the period 4 of a stride behind the Haar transform.

        Args:
            images: (..., H, W): the SR images, HR images, or samples.
            batch: the batch of the step.
            step: the step.

        Returns:
            (..., H, W), moved by the same offset for all images of a step; mirrored rows and columns fill the edges.
        """
        if self.phase == "fixed":
            return images
        generator = torch.Generator("cpu").manual_seed(seed_of(step.seed, "phase"))  # sizes are no tensors
        top, left = torch.randint(_offsets(batch), (2,), generator=generator, device="cpu").tolist()
        height, width = images.shape[-2:]
        moved = F.pad(images.flatten(0, -4), (left, 0, top, 0), mode="reflect")[..., :height, :width]
        return moved.unflatten(0, images.shape[:-3])

    def trained_parts(self) -> dict[str, nn.Module]:
        """The embedding, if it is trained: frozen in another training it is PCL-F (Table V)."""
        return {f"{self.name}_embedding": self.embedding} if self.trains_embedding else {}

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``discriminator``: eq. 7 on HR and detached SR images; nothing if the embedding does not learn (any more)."""
        if not self.trains_embedding or step.number >= self.embedding_ends:
            return {}
        embedding = self.embedding
        assert isinstance(embedding, TrainableEmbedding)
        real, fake = self.discriminated(batch, step)
        images = self.shifted(torch.cat((real, fake)), batch, step)
        with training_mode(embedding, True):
            logits = embedding.logits(images)
        return {"discriminator": Contrast(self.discriminator_loss(*logits.split((len(real), len(fake)))))}

    def discriminated(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """The real and the fake images (N, 3, H, W) that a step teaches the embedding to tell: HR and SR."""
        return batch["hr"].to(batch["sr"]), batch["sr"]

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


def _offsets(batch: Batch) -> int:
    """How many offsets the random phase has in each direction."""
    return math.lcm(4, batch["hr"].shape[-1] // batch["lr"].shape[-1])
