"""What the methods share that contrast features position by position, on any SR network: CRL-SR (arXiv 2107.00708)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, describe
from contrastive_sr.embeddings import frozen
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import Contrast
from contrastive_sr.losses.positions import Features, PositionLoss, mean_metrics
from contrastive_sr.methods.base import Step
from contrastive_sr.methods.compared import Comparison, compare_layers, mean_cosine, strongest_place
from contrastive_sr.methods.embedding import EmbeddingMethod
from contrastive_sr.methods.layers import feature_key
from contrastive_sr.samples import Batch, draw

PositionReduction = Literal["mean", "sum"]


class PositionMethod(EmbeddingMethod):
    """A method whose term is a :class:`~contrastive_sr.losses.positions.PositionLoss`.

    The anchors are the SR image's features in the embedding, frozen, or the outputs of the SR network's own layers in
    its one forward pass. The others are embedded without a graph. So the term's gradient reaches the SR image, or
    the tapped layers and what lies before them, and nothing else; the heads learn in the auxiliary step, from the same
    loss on detached features at the same positions.

    A subclass calls :meth:`contrast_positions` in its constructor.

    Attributes:
        roles: the loss's names of the SR image's features, of those of positives and of negatives, by our role.
        directions: the roles of the loss that are anchor and candidates; one pair for each direction.
    """

    roles: ClassVar[Mapping[str, str]]
    directions: tuple[tuple[str, str], ...]

    def contrast_positions(
        self, loss: Callable[..., PositionLoss], *, layers: Sequence[str] | None, dim: int | None
    ) -> None:
        """Say what is contrasted, and how.

        Args:
            loss: makes the loss, with ``channels``, ``anchor_channels`` and ``dim`` if it gets heads.
            layers: names of the SR network's modules, one for each feature map of the embedding. None: the SR image's
                features in the embedding.
            dim: dimension of the vectors that the heads give. None: no heads.

        Raises:
            ConfigError: an argument that makes no sense; the message says which.
        """
        self.features = self.embedding  # a part of this module
        self.channels = self.embedding.channels()
        self.layers = self._check_layers(layers)
        self.dim = None if dim is None else check_count(dim, f"{self.name}: dim")
        self._make_loss = loss
        # With layers, the heads follow in build(): how many channels the layers have is known only then.
        self.loss = loss() if self.layers or self.dim is None else loss(channels=self.channels, dim=self.dim)

    def _check_layers(self, layers: Sequence[str] | None) -> tuple[str, ...]:
        if layers is None:
            return ()
        listed = isinstance(layers, Sequence) and not isinstance(layers, str)
        if not listed or not layers or not all(isinstance(name, str) for name in layers):
            raise ConfigError(
                f"{self.name}: layers: expected a list of names of the SR network's modules, e.g. [body.15], or "
                f"none for the SR image's features in the embedding; got {describe(layers)}."
            )
        if len(layers) != len(self.channels):
            raise ConfigError(
                f"{self.name}: layers: expected one for each feature map of {type(self.embedding).__name__}, which "
                f"has {len(self.channels)} (of {self.channels} channels), got {len(layers)}. Name others, or give "
                "the embedding as many out_indices."
            )
        return tuple(layers)

    def build(self, net: nn.Module, dry: Batch) -> None:
        """Make the heads for the SR network's layers; see :meth:`Method.build`.

        Raises:
            ConfigError: without heads, layers whose channels are not those of the embedding's maps.
        """
        super().build(net, dry)
        if not self.layers:
            return
        tapped = [dry[feature_key(name)].shape[1] for name in self.layers]
        if self.dim is not None:
            loss = self._make_loss(channels=self.channels, anchor_channels=tapped, dim=self.dim)
            self.loss = loss.to(next(self.embedding.parameters(), torch.empty(())))
        elif tapped != self.channels:
            raise ConfigError(
                f"{self.name}: layers: they have {tapped} channels and the embedding's maps {self.channels}, which can "
                "be compared only behind heads. Give `dim`, e.g. 256."
            )

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``discriminator``, if the embedding learns, and ``contrast_head``, if there are heads."""
        losses = super().auxiliary(batch, step)
        if self.loss.heads is not None:
            with frozen(self.embedding):
                with torch.no_grad():
                    anchors = self._anchors(batch, step)
                loss = self._contrast(batch, [anchor.detach() for anchor in anchors], step).loss
            losses["contrast_head"] = Contrast(loss)
        return losses

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The contrastive term."""
        with frozen(self.loss), frozen(self.embedding):
            anchors = self._anchors(batch, step)
            contrast = self._contrast(batch, anchors, step)
        return {"contrastive": contrast._replace(points=anchors if self.layers else None)}

    def shifted(self, images: Tensor, batch: Batch, step: Step) -> Tensor:
        """As in :class:`EmbeddingMethod`; not with ``layers``, whose outputs lie where they lie."""
        return images if self.layers else super().shifted(images, batch, step)

    def _anchors(self, batch: Batch, step: Step) -> list[Tensor]:
        """The features that are to change, one per layer."""
        if self.layers:
            anchors = [batch[feature_key(name)] for name in self.layers]
            size = batch["lr"].shape[-2:]
            for name, x in zip(self.layers, anchors, strict=True):
                if not all(map(_covers, x.shape[-2:], size)):
                    raise DataError(
                        f"{self.name}: layers: expected maps of {name!r} that cover the LR images of {tuple(size)} "
                        f"alone, got {tuple(x.shape[-2:])}. The network seems to pad or to crop. Take HR patches whose "
                        "LR size needs neither, such as a multiple of the network's windows, or other layers."
                    )
            return anchors
        with frozen(self.embedding):
            return list(self.embedding(self.shifted(batch["sr"], batch, step)))

    def _contrast(self, batch: Batch, anchors: list[Tensor], step: Step) -> Contrast:
        """The mean over all positives (and negatives) of this step."""
        generator = step.generator(batch["hr"].device)
        with torch.no_grad(), frozen(self.embedding):
            images = draw([*self.positives, *self.negatives], batch, generator).to(batch["sr"].dtype)
            images = self.shifted(images, batch, step)
            maps = [x.unflatten(0, images.shape[:2]).unbind(1) for x in self.embedding(images.flatten(0, 1))]
        count = sum(sample.count for sample in self.positives)
        keys = [list(layer) for layer in zip(*maps, strict=True)]
        combinations = self._combinations(anchors, keys[:count], keys[count:])
        contrasts = [self.loss.contrast_roles(roles, generator) for roles in combinations]
        loss = torch.stack([contrast.loss for contrast in contrasts]).mean()
        return Contrast(loss, mean_metrics([contrast.metrics for contrast in contrasts]))

    def _combinations(
        self, anchors: list[Tensor], positives: list[list[Tensor]], negatives: list[list[Tensor]]
    ) -> list[dict[str, Features]]:
        """Features by the loss's roles, for each positive and, if the loss reads them, each negative."""
        pairs = [(p, n) for p in positives for n in (negatives if "negative" in self.roles else [[]])]
        return [
            {name: {"sr": anchors, "positive": p, "negative": n}[role] for role, name in self.roles.items()}
            for p, n in pairs
        ]

    # ------------------------------------------------------------------------------------------ for a person to look at

    def untrained(self, step: Step) -> str:
        """As :meth:`EmbeddingMethod.untrained`; also heads."""
        heads = "untrained heads" if self.loss.heads is not None and step.number == 0 else ""
        return " and ".join(filter(None, (super().untrained(step), heads))).replace(" and untrained", " and")

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """The images with their mean cosines, and for each layer a place; see :meth:`Method.compared`.

        Of several positives or negatives the first is taken.
        """
        images = {"sr": ("SR", batch["sr"][0].detach())}
        for label, role, image in self.named_samples(batch, step):
            images.setdefault(role, (label, image))
        with frozen(self.embedding):
            anchors = self._anchors(batch, step) if self.layers else list(self.embedding(batch["sr"][:1]))
            anchors = [anchor[:1] for anchor in anchors]
            features = {"sr": anchors}
            for role, (_, image) in images.items():
                if role != "sr":
                    features[role] = self.embedding(image[None].to(anchors[0].dtype))
        layers = self.loss.maps({self.roles[role]: x for role, x in features.items()})
        named = {self.roles[role]: image for role, image in images.items()}
        comparisons = compare_layers(layers, named, self.directions, strongest_place(batch["hr"]))
        sr, *others = (self.roles[role] for role in images)
        parts = self.shown(
            [(label, "anchor" if role == "sr" else role, image) for role, (label, image) in images.items()],
            [None, *(mean_cosine(layers, sr, other) for other in others)],
        )
        means = Comparison("images", "cosine, mean over places and layers", parts)
        return [replace(comparison, note=self.untrained(step)) for comparison in (means, *comparisons)]


def _covers(side: int, of_lr: int) -> bool:
    """Whether a map's side is that of the LR images, a multiple of it, or a part, rounded."""
    if side > of_lr:
        return side % of_lr == 0
    part = of_lr // side
    return any(side in (of_lr // k, math.ceil(of_lr / k)) for k in (part, part + 1))
