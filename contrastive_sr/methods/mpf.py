"""MPF-Net: "Learning from Multi-Perception Features for Real-World Image Super-resolution", the training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from contrastive_sr._checks import check_count, describe
from contrastive_sr.config import build
from contrastive_sr.embeddings import MLPHead, TrainableEmbedding, training_mode
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import ContrastiveRegularizationLoss, FakeContrastLoss, SimCLRLoss
from contrastive_sr.methods.base import Method, SRLosses, Term
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.embedding import EmbeddingConfig, ImageMethod
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SAMPLES, Batch, SampleConfig, SampleGenerator, TeacherOutput, random_view
from contrastive_sr.samples.views import view_size

HIGH_PASSED = 3
BLURRED = 4
TRAININGS = ("dual", "contrad", "frozen")
DIM = 128  # of the vectors that "contrad" compares


class Row(NamedTuple):
    """A row of Table VII that has a contrast.

    Attributes:
        embedding: the default.
        positives: ``"gt"`` and ``"gen"``, what there is of them.
        negatives: likewise ``"gen"``, ``"lr"`` and ``"random"``.
    """

    embedding: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


CONFIGS = {
    1: None,
    2: Row("VGGFeatures", ("gt", "gen"), ("gen", "lr")),
    3: Row("SNResNet18", ("gen",), ("gen",)),
    4: Row("SNResNet18", ("gt", "gen"), ("random",)),
    5: Row("SNResNet18", ("gt", "gen"), ("lr",)),
    6: Row("SNResNet18", ("gt",), ("gen", "lr")),
    7: Row("SNResNet18", ("gt", "gen"), ("gen", "lr")),
}


class MPF(ImageMethod):
    """MPF-Net's contrastive regularization, on its network or any other, and the seven configurations of Table VII.

    Positives (eq. 7) are the HR image, three high-passed ones and the SR image of a trained network, the teacher;
    negatives (eq. 8) four HR images with blur and noise, and the enlarged LR image. The paper names no high-pass
    filter: ours is PCL-SR's random sharpening (:class:`~contrastive_sr.samples.Sharpen`), which it follows. Without a
    teacher there are four positives.

    Schedule: the first ``start`` SR steps train the network by the host's own losses, the paper's L1, alone, and
    nothing of the contrast is computed; from then on the contrast counts as well. The learning rate belongs to the
    host's scheduler.

    How the embedding learns is not said. ``"dual"``: as PCL-SR's, by eq. 7 there, to tell HR from SR images.
    ``"contrad"``: as in the paper that it is taken from (ContraD), by finding the other view of an HR image
    among all views, and by drawing SR images together and away from HR ones, behind a head each; the views of
    :func:`~contrastive_sr.samples.random_view` are ours. ``"frozen"``: not at all.

    Terms: ``contrastive``; none with ``config`` 1. Figures: ``positive_similarity``, ``negative_similarity``. Before
    ``start`` all of these are 0. Trained parts: ``discriminator``, or with ``"contrad"`` ``simclr`` and
    ``fake_contrast``.

    Args:
        loss_weight: fixed weight of the term; beta, the paper's is 1. Not used by ``config`` 1.
        loss_share: instead, the share of the pixel loss's gradient to keep, e.g. 0.05.
        config: row of Table VII. 1: no contrast. 2: the embedding is VGG-19. 3: generated positives (high-passed,
            teacher) and negatives (blurred). 4: negatives are other images of the batch. 5: the negative is the LR
            image. 6: the positive is HR. 7: all, the paper's.
        start: SR steps before the contrast counts; the paper's is 200,000.
        embedding_start: SR steps before the embedding learns, at most ``start``. None: ``start``; the first contrasts
            are then in an embedding that has learnt next to nothing, at full weight. Below ``start`` is better.
        teacher: the arguments of :class:`~contrastive_sr.samples.TeacherOutput`, ``network`` and ``weights``, or a
            built one. None: no teacher.
        noise: (low, high) of the blurred images' noise, as a standard deviation for images in [0, 1]. The paper gives
            no level; ours is up to 10 / 255.
        temperature: tau, above 0. The paper gives none; ours is PCL-SR's.
        variant: ``"cosine"``, or ``"paper"`` for eq. 10's dot product of whole maps.
        embedding: a mapping such as ``{"type": "SNResNet18"}``, or an embedding. None: the row's.
        embedding_training: ``"dual"``, ``"contrad"`` or ``"frozen"``. None: ``"dual"`` if it can learn.
        seed: seed of samples and views.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of the share to the next.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> method = MPF(loss_weight=1.0, teacher={"network": torch.nn.Upsample(scale_factor=4)})
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 8, 8), "hr": torch.rand(2, 3, 32, 32)})
        >>> list(method.auxiliary_losses(batch))
        ['mpf_discriminator']
        >>> list(method.sr_losses(batch).terms)
        ['mpf_contrastive']
    """

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        config: int = 7,
        start: int = 0,
        embedding_start: int | None = None,
        teacher: Mapping[str, object] | TeacherOutput | None = None,
        noise: tuple[float, float] = (0.0, 10 / 255),
        temperature: float = 1.0,
        variant: str = "cosine",
        embedding: EmbeddingConfig | None = None,
        embedding_training: str | None = None,
        seed: int = 0,
        name: str = "mpf",
        share_interval: int = 5,
    ) -> None:
        if not isinstance(config, int) or isinstance(config, bool) or config not in CONFIGS:
            raise ConfigError(
                f"{name}: config: expected a row of Table VII, one of {', '.join(map(str, CONFIGS))}; got "
                f"{describe(config)}."
            )
        check_count(start, f"{name}: start", at_least=0)
        if embedding_start is not None and check_count(embedding_start, f"{name}: embedding_start", at_least=0) > start:
            raise ConfigError(
                f"{name}: embedding_start: expected at most start, {start}, got {embedding_start}. The contrast would "
                "be in an embedding that has learnt nothing; `embedding_training: frozen` is for one that need not."
            )
        if embedding_training not in (None, *TRAININGS):
            raise ConfigError(
                f"{name}: embedding_training: expected one of {', '.join(TRAININGS)}, got {embedding_training!r}."
            )
        row = CONFIGS[config]
        if row is None:
            super().__init__(name, seed, None, None, None)
            self.start = self.embedding_start = start
            return
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share, share_interval, start)
        positives = _positives(row, teacher, name)
        super().__init__(name, seed, weight, positives, _negatives(row, noise))
        self.start = start
        self.embedding_start = start if embedding_start is None else embedding_start
        network = self.build_embedding(
            {"type": row.embedding} if embedding is None else embedding,
            False if embedding_training == "frozen" else None,
        )
        if embedding_training not in (None, "frozen") and not self.trains_embedding:
            raise ConfigError(
                f"{name}: embedding_training: {type(network).__name__} cannot learn, got {embedding_training!r}. Leave "
                "it out, or choose SNResNet18."
            )
        self.loss = ContrastiveRegularizationLoss(network, self.positives, self.negatives, temperature, variant)
        self.measure = self.loss.measure
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
        if teacher is None and "gen" in row.positives:
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
        """Also refuse images that embedding or samples cannot take; see :meth:`Method.check_batch`."""
        if not self.contrasts:
            Method.check_batch(self, batch)
            return
        super().check_batch(batch)
        if self.contrad is not None:
            try:
                self.embedding.check_size(*map(view_size, batch["hr"].shape[-2:]))
            except DataError as error:
                raise DataError(f"{self.name}: views of HR images are an eighth smaller. {error}") from error

    def compared(self, batch: Batch) -> list[Comparison]:
        """As :meth:`ImageMethod.compared`, also before ``start``; nothing with ``config`` 1."""
        return super().compared(batch) if self.contrasts else []

    def auxiliary_terms(self, batch: Batch) -> dict[str, Tensor]:
        """What trains the embedding, from ``embedding_start`` on: ``discriminator``, or ``simclr``, ``fake_contrast``.

        Args:
            batch: what :meth:`run` returned.
        """
        if not self.trains_embedding or self.step.value < self.embedding_start:
            return {}
        if self.contrad is None:
            return super().auxiliary_terms(batch)
        embedding = self.embedding
        assert isinstance(embedding, TrainableEmbedding)
        generator = self.generator(batch["hr"].device)
        hr, sr = batch["hr"].to(batch["sr"]), batch["sr"].detach()
        views = torch.cat([random_view(images, generator) for images in (hr, hr, sr)])
        with training_mode(embedding, True):
            vectors = embedding.vectors(views)
        return self.contrad(*vectors.chunk(3))

    def terms(self, batch: Batch) -> dict[str, Term]:
        """The contrastive term, from ``start`` on.

        Args:
            batch: what :meth:`run` returned.
        """
        return super().terms(batch) if self.contrasts and self.step.value >= self.start else {}

    def sr_losses(self, batch: Batch, pixel_loss: Tensor | None = None) -> SRLosses:
        """As :meth:`Method.sr_losses`; before ``start`` with zeros under the same names."""
        losses = super().sr_losses(batch, pixel_loss)
        if self.contrasts and not losses.terms:
            weight = self.weights["contrastive"]
            assert isinstance(weight, TermWeight)
            weight.check_pixel_loss(pixel_loss)  # now, and not when the contrast begins
            zero = batch["sr"].new_zeros(())
            label = f"{self.name}_contrastive"
            losses.terms[label] = zero
            names = [f"{label}_raw", f"{self.name}_positive_similarity", f"{self.name}_negative_similarity"]
            names += [f"{label}_weight"] + [f"{label}_share"] * (pixel_loss is not None)
            losses.logs.update(dict.fromkeys(names, zero))
        return losses


class ContraD(torch.nn.Module):
    """The two losses of ContraD, each behind a projection head.

    Args:
        channels: of the vectors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.real_head, self.fake_head = (MLPHead(channels, DIM) for _ in range(2))
        self.simclr, self.fake_contrast = SimCLRLoss(gather=True), FakeContrastLoss(gather=True)

    def forward(self, first: Tensor, second: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The losses by name.

        Args:
            first: (B, C) vectors of one view of each HR image.
            second: (B, C) vectors of another.
            fake: (B, C) vectors of a view of each SR image.
        """
        real = torch.cat((first, second))
        return {
            "simclr": self.simclr(*self.real_head(real).chunk(2)),
            "fake_contrast": self.fake_contrast(self.fake_head(fake), self.fake_head(real)),
        }


def _positives(row: Row, teacher: Mapping[str, object] | TeacherOutput | None, name: str) -> list[SampleConfig]:
    samples: list[SampleConfig] = []
    if "gt" in row.positives:
        samples.append({"type": "HighResolution"})
    if "gen" in row.positives:
        samples.append({"type": "Sharpen", "count": HIGH_PASSED})
        if isinstance(teacher, Mapping):
            samples.append(build(SampleGenerator, SAMPLES, {"type": "TeacherOutput", **teacher}, f"{name}: teacher"))
        elif isinstance(teacher, TeacherOutput):
            samples.append(teacher)
        elif teacher is not None:
            raise ConfigError(
                f"{name}: teacher: expected a mapping with `network` and `weights`, got {describe(teacher)}."
            )
    return samples


def _negatives(row: Row, noise: tuple[float, float]) -> list[SampleConfig]:
    every: dict[str, SampleConfig] = {
        "gen": {"type": "GaussianBlur", "count": BLURRED, "noise": noise},
        "lr": {"type": "UpsampledLowResolution"},
        "random": {"type": "OtherInstances", "count": BLURRED + 1},
    }
    return [every[kind] for kind in row.negatives]
