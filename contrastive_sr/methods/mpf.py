"""MPF-Net: "Learning from Multi-Perception Features for Real-World Image Super-resolution", the training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from contrastive_sr._checks import check_choice, check_count, describe
from contrastive_sr.config import build
from contrastive_sr.embeddings import TrainableEmbedding, training_mode
from contrastive_sr.embeddings.sn_resnet import contrad_head
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.embedded import Similarity
from contrastive_sr.losses import Contrast, FakeContrastLoss, ImageContrastLoss, SimCLRLoss
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.embedding import EmbeddingConfig, Phase
from contrastive_sr.methods.images import ImageMethod
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SAMPLES, Batch, SampleConfig, TeacherOutput, random_view
from contrastive_sr.samples.views import view_size

Variant = Literal[1, 2, 3, 4, 5, 6, 7]
Training = Literal["dual", "contrad", "frozen"]
HIGH_PASSED = 3
BLURRED = 4
DIM = 128  # of the vectors that "contrad" compares


class Parts(NamedTuple):
    """A row of Table VII that has a contrast.

    Attributes:
        embedding: the default.
        positives: ``"gt"`` and ``"gen"``, what there is of them.
        negatives: ``"gen"``, ``"lr"`` and ``"random"``, what there is of them.
    """

    embedding: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


VARIANTS: Mapping[int, Parts | None] = {
    1: None,
    2: Parts("VGGFeatures", ("gt", "gen"), ("gen", "lr")),
    3: Parts("SNResNet18", ("gen",), ("gen",)),
    4: Parts("SNResNet18", ("gt", "gen"), ("random",)),
    5: Parts("SNResNet18", ("gt", "gen"), ("lr",)),
    6: Parts("SNResNet18", ("gt",), ("gen", "lr")),
    7: Parts("SNResNet18", ("gt", "gen"), ("gen", "lr")),
}


@register_method
class MPF(ImageMethod):
    """MPF-Net's contrastive regularization, on its network or any other, and the seven rows of Table VII.

    Positives (eq. 7) are the HR image, three high-passed ones and the SR image of a trained network, the teacher;
    negatives (eq. 8) four HR images with blur and noise, and the enlarged LR image. The paper names no high-pass
    filter: ours is PCL-SR's random sharpening (:class:`~contrastive_sr.samples.Sharpen`), which it follows. Without a
    teacher there are four positives.

    Schedule: in the first ``warmup_steps`` SR steps the network is trained by the host's own losses alone (L1 in the
    paper), and nothing of the contrast is computed; from then on the contrast counts as well. The learning rate belongs
    to the host's scheduler.

    The paper does not say how the embedding learns. ``"dual"``: like PCL-SR's, by eq. 7 there, to tell HR from SR
    images. ``"contrad"``: as in the paper that it is taken from (ContraD), by finding the other view of an HR image
    among all views, and by drawing SR images together and away from HR ones, each behind a head of its own; the views
    of :func:`~contrastive_sr.samples.random_view` are ours. ``"frozen"``: not at all.

    Terms: ``contrastive``; none with variant 1. Metrics: ``positive_similarity``, ``negative_similarity``. In the
    warm-up all of these are 0. Trained parts: ``discriminator``, or with ``"contrad"`` ``simclr`` and
    ``fake_contrast``.

    Args:
        loss_weight: fixed weight of the term; beta, the paper's is 1. Not used by variant 1.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given, the
            share is 0.05.
        variant: a row of Table VII. 1: no contrast. 2: the embedding is VGG-19. 3: generated positives (high-passed,
            teacher) and negatives (blurred). 4: negatives are other images of the batch. 5: the negative is the LR
            image. 6: the positive is HR. 7: everything, the paper's.
        warmup_steps: SR steps before the contrast counts; the paper's is 200,000.
        embedding_warmup_steps: SR steps before the embedding learns, at most ``warmup_steps``. None: the same number;
            the first contrasts are then computed in an embedding that has learnt next to nothing, at full weight. A
            smaller number is better.
        teacher: the arguments of :class:`~contrastive_sr.samples.TeacherOutput`, ``network`` and ``weights``, or a
            ``TeacherOutput``. None: no teacher.
        noise: (low, high) of the standard deviation of the blurred images' noise, for images in [0, 1]. The paper gives
            no level; ours is up to 10 / 255.
        temperature: tau, above 0. The paper gives none; ours is PCL-SR's.
        similarity: ``"cosine"``, or ``"dot"`` for eq. 10's dot product of whole maps.
        embedding: a mapping such as ``{"type": "SNResNet18"}``, or an embedding. None: that of the row.
        embedding_training: ``"dual"``, ``"contrad"`` or ``"frozen"``. None: ``"dual"`` if it can learn.
        seed: seed of samples and views.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper; see :class:`~contrastive_sr.methods.PCL`.
        every: apply the term, and train the embedding, only once in this many steps; the term's weight is this many
            times as large there.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> from contrastive_sr.methods import Methods
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> methods = Methods([MPF(loss_weight=1.0, teacher={"network": torch.nn.Upsample(scale_factor=4)})])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 8, 8), "hr": torch.rand(2, 3, 32, 32)})
        >>> list(methods.auxiliary_losses(batch))
        ['mpf_discriminator']
    """

    paper = "MPF-Net"

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        variant: Variant = 7,
        warmup_steps: int = 0,
        embedding_warmup_steps: int | None = None,
        teacher: Mapping[str, object] | TeacherOutput | None = None,
        noise: tuple[float, float] = (0.0, 10 / 255),
        temperature: float = 1.0,
        similarity: Similarity = "cosine",
        embedding: EmbeddingConfig | None = None,
        embedding_training: Training | None = None,
        seed: int = 0,
        name: str = "mpf",
        share_interval: int = 5,
        phase: Phase = "random",
        every: int = 1,
    ) -> None:
        check_choice(variant, list(VARIANTS), f"{name}: variant")
        check_count(warmup_steps, f"{name}: warmup_steps", at_least=0)
        if embedding_warmup_steps is None:
            embedding_warmup_steps = warmup_steps
        elif check_count(embedding_warmup_steps, f"{name}: embedding_warmup_steps", at_least=0) > warmup_steps:
            raise ConfigError(
                f"{name}: embedding_warmup_steps: expected at most warmup_steps, {warmup_steps}, got "
                f"{embedding_warmup_steps}. The contrast would be in an embedding that has learnt nothing; "
                "`embedding_training: frozen` is for one that need not."
            )
        if embedding_training is not None:
            check_choice(embedding_training, get_args(Training), f"{name}: embedding_training")
        parts = VARIANTS[variant]
        if parts is None:
            Method.__init__(self, name, seed=seed, every=every)
            self.positives, self.negatives = [], []
            self.trains_embedding, self.metrics = False, {}
            return
        super().__init__(
            name,
            seed=seed,
            weight=TermWeight(
                f"{name}_contrastive", loss_weight, loss_share, interval=share_interval, warmup_steps=warmup_steps
            ),
            embedding={"type": parts.embedding} if embedding is None else embedding,
            train_embedding=False if embedding_training == "frozen" else None,
            positives=_positives(parts, teacher, name),
            negatives=_negatives(parts, noise),
            phase=phase,
            every=every,
        )
        network = self.embedding
        self.loss = ImageContrastLoss(network, temperature=temperature, similarity=similarity)
        self.contrast_begins, self.embedding_begins = warmup_steps, embedding_warmup_steps
        if embedding_training not in (None, "frozen") and not self.trains_embedding:
            raise ConfigError(
                f"{name}: embedding_training: {type(network).__name__} cannot learn, got {embedding_training!r}. Leave "
                "it out, or choose SNResNet18."
            )
        self.contrad: ContraD | None = None
        if embedding_training == "contrad":
            assert isinstance(network, TrainableEmbedding)
            if not hasattr(network, "vector_size") or not hasattr(network, "head"):
                raise ConfigError(
                    f"{name}: embedding_training: 'contrad' needs the attributes vector_size and head and the method "
                    f"vectors(), which {type(network).__name__} does not have. Choose SNResNet18, or 'dual'."
                )
            self.contrad = ContraD(network.vector_size)
            network.head.requires_grad_(False)  # nothing reads the logits
        if teacher is None and "gen" in parts.positives:
            warnings.warn(
                f"{name}: there is no teacher, so that there are {sum(s.count for s in self.positives)} positives "
                "where the paper has one more. Give `teacher` a network and its weights.",
                stacklevel=2,
            )

    @property
    def contrasts(self) -> bool:
        """Whether there is a contrast at all."""
        return len(self.weights) > 0

    def check_batch(self, batch: Batch) -> None:
        """Refuse images that embedding or samples cannot take; see :meth:`Method.check_batch`."""
        if not self.contrasts:
            return
        super().check_batch(batch)
        if self.contrad is not None:
            try:
                self.embedding.check_size(*map(view_size, batch["hr"].shape[-2:]))
            except DataError as error:
                raise DataError(f"{self.name}: views of HR images are an eighth smaller. {error}") from error

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """Trains the embedding: by ``discriminator``, or by ``simclr`` and ``fake_contrast``."""
        if not self.trains_embedding or step.number < self.embedding_begins:
            return {}
        if self.contrad is None:
            return super().auxiliary(batch, step)
        embedding = self.embedding
        assert isinstance(embedding, TrainableEmbedding)
        generator = step.generator(batch["hr"].device)
        hr, sr = batch["hr"].to(batch["sr"]), batch["sr"]
        views = torch.cat([random_view(images, generator) for images in (hr, hr, sr)])
        with training_mode(embedding, True):
            vectors = embedding.vectors(views)
        with training_mode(self.contrad, True):
            losses = self.contrad(*vectors.chunk(3))
        return {name: Contrast(loss) for name, loss in losses.items()}

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The contrastive term, after the warm-up."""
        return super().terms(batch, step) if self.contrasts and step.number >= self.contrast_begins else {}

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """As :meth:`ImageMethod.compared`, also in the warm-up; nothing with variant 1."""
        return super().compared(batch, step) if self.contrasts else []


class ContraD(torch.nn.Module):
    """The two losses of ContraD, each behind a projection head: 1024 and 128 numbers, under spectral normalisation.

    Heads and losses are computed in the precision of the weights, also under autocast.

    Args:
        channels: dimension of the vectors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.real_head, self.fake_head = (contrad_head(channels, DIM) for _ in range(2))
        self.simclr, self.fake_contrast = SimCLRLoss(gather=True), FakeContrastLoss(gather=True)

    def forward(self, first: Tensor, second: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The losses by name.

        Args:
            first: (B, C) vectors of one view of each HR image.
            second: (B, C) vectors of another.
            fake: (B, C) vectors of a view of each SR image.
        """
        count = len(first)
        vectors = torch.cat((first, second, fake)).to(next(self.parameters()))
        with torch.autocast(vectors.device.type, enabled=False):
            first, second = self.real_head(vectors[: 2 * count]).chunk(2)
            real, fake = self.fake_head(vectors).split((2 * count, len(fake)))
            return {"simclr": self.simclr(first, second), "fake_contrast": self.fake_contrast(fake, real)}


def _positives(parts: Parts, teacher: Mapping[str, object] | TeacherOutput | None, name: str) -> list[SampleConfig]:
    samples: list[SampleConfig] = []
    if "gt" in parts.positives:
        samples.append({"type": "HighResolution"})
    if "gen" in parts.positives:
        samples.append({"type": "Sharpen", "count": HIGH_PASSED})
        if isinstance(teacher, Mapping):
            samples.append(build(SAMPLES, {"type": "TeacherOutput", **teacher}, f"{name}: teacher"))
        elif isinstance(teacher, TeacherOutput):
            samples.append(teacher)
        elif teacher is not None:
            raise ConfigError(
                f"{name}: teacher: expected a mapping with `network` and `weights`, got {describe(teacher)}."
            )
    return samples


def _negatives(parts: Parts, noise: tuple[float, float]) -> list[SampleConfig]:
    every: dict[str, SampleConfig] = {
        "gen": {"type": "GaussianBlur", "count": BLURRED, "noise": noise},
        "lr": {"type": "UpsampledLowResolution"},
        "random": {"type": "OtherInstances", "count": BLURRED + 1},
    }
    return [every[kind] for kind in parts.negatives]
