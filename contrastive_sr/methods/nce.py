"""CRL-SR's contrasts of features, position by position, on any SR network: arXiv 2107.00708."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, describe
from contrastive_sr.embeddings import Embedding, frozen
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import BidirectionalNCELoss, InfoNCELoss, SRNCELoss
from contrastive_sr.losses.positions import NEGATIVES, PositionContrast, PositionLoss
from contrastive_sr.methods.base import Term
from contrastive_sr.methods.compared import Comparison, compare_layers, mean_cosine, strongest_place
from contrastive_sr.methods.embedding import EmbeddingConfig, EmbeddingMethod
from contrastive_sr.methods.layers import feature_key, layer_channels
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch, SampleConfig, draw

HIGH_RESOLUTION = ({"type": "HighResolution"},)
UPSAMPLED = ({"type": "UpsampledLowResolution"},)


class PositionMethod(EmbeddingMethod):
    """What the methods over positions share: where features come from, their heads, and two steps of training.

    The anchors are the SR image's features in the embedding, frozen, or the outputs of the SR network's own layers in
    its one forward pass. The others are embedded without a graph. So the term's gradient reaches the SR image, or
    the tapped layers and what lies before them, and nothing else; the heads learn in the auxiliary step, from the same
    loss on detached features at the same positions.
    """

    loss: PositionLoss
    directions: tuple[tuple[str, str], ...] = ()
    """The roles of the loss that are anchor and candidates; one pair a direction."""
    roles: ClassVar[Mapping[str, str]] = {}
    """The loss's names of the SR image's features, of those of positives and of negatives, by our role."""

    def __init__(
        self,
        name: str,
        seed: int,
        weight: TermWeight,
        embedding: EmbeddingConfig | None,
        train_embedding: bool | None,
        positives: Sequence[SampleConfig],
        negatives: Sequence[SampleConfig] | None,
        layers: Sequence[str] | None,
        dim: int | None,
        loss: Callable[..., PositionLoss],
    ) -> None:
        super().__init__(name, seed, weight, positives, negatives)
        self.network = self.build_embedding(embedding, train_embedding)
        self.channels = self.network.channels()
        self.layers = self._check_layers(layers)
        self.dim = None if dim is None else check_count(dim, f"{name}: dim")
        self._make_loss = loss
        # With layers, the heads follow in attach(): how many channels the layers have is known only then.
        self.loss = loss() if self.layers or self.dim is None else loss(channels=self.channels, dim=self.dim)
        self._attached = not self.layers

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
                f"{self.name}: layers: expected one for each feature map of {type(self.network).__name__}, which "
                f"has {len(self.channels)} (of {self.channels} channels), got {len(layers)}. Name others, or give "
                "the embedding as many taps."
            )
        return tuple(layers)

    @property
    def embedding(self) -> Embedding:
        """The embedding network."""
        return self.network

    def attach(self, net: nn.Module) -> None:
        """Look at the tapped layers of the SR network, and build the heads for them.

        To be called once, before optimizers are made from ``parameters()`` and before DistributedDataParallel wraps
        this method; without ``layers`` it does nothing.

        Args:
            net: the SR network.

        Raises:
            ConfigError: a layer that is not there, runs more than once, or gives no (B, C, H, W) map; without heads,
                one whose channels are not those of the embedding's map; or a second call.
        """
        if not self.layers:
            return
        if self._attached:
            raise ConfigError(f"{self.name}: attach() was called before; new heads would not be in the optimizer.")
        tapped = layer_channels(net, self.layers)
        if self.dim is not None:
            loss = self._make_loss(channels=self.channels, anchor_channels=tapped, dim=self.dim)
            self.loss = loss.to(next(self.network.parameters(), torch.empty(())))
        elif tapped != self.channels:
            raise ConfigError(
                f"{self.name}: layers: they have {tapped} channels and the embedding's maps {self.channels}, which can "
                "be compared only behind heads. Give `dim`, e.g. 256."
            )
        self._attached = True

    def run(self, net: Callable[[Tensor], Tensor], batch: Batch, layers: Sequence[str] = ()) -> dict[str, Tensor]:
        """Super-resolve the batch; see :meth:`Method.run`.

        Raises:
            ConfigError: :meth:`attach` was not called, and there are ``layers``.
        """
        if not self._attached:
            raise ConfigError(
                f"{self.name}: the heads of `layers` do not exist yet. Call attach(net) once, before the optimizers "
                "are made from parameters()."
            )
        return super().run(net, batch, layers)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not self._attached and any(key.startswith(f"{prefix}loss.heads.") for key in state_dict):
            raise ConfigError(
                f"{self.name}: the state holds heads for `layers`, which do not exist yet. Call attach(net) before "
                "load_state_dict()."
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def auxiliary_terms(self, batch: Batch) -> dict[str, Tensor]:
        """``discriminator``, if the embedding learns, and ``contrast_head``, if there are heads.

        Args:
            batch: what :meth:`run` returned.
        """
        losses = super().auxiliary_terms(batch)
        if self.loss.heads is not None:
            with torch.no_grad():
                anchors = self._anchors(batch)
            losses["contrast_head"] = self._contrast(batch, [anchor.detach() for anchor in anchors]).loss
        return losses

    def terms(self, batch: Batch) -> dict[str, Term]:
        """The contrastive term.

        Args:
            batch: what :meth:`run` returned.
        """
        self.share_statistics()
        with frozen(self.loss):
            anchors = self._anchors(batch)
            contrast = self._contrast(batch, anchors)
        figures = {"positive_similarity": contrast.positive_similarity, "lr_similarity": contrast.lr_similarity}
        logged = {key: x for key, x in figures.items() if x is not None}
        return {"contrastive": Term(contrast.loss, logged, anchors if self.layers else None)}

    @property
    def untrained(self) -> str:
        """As :meth:`EmbeddingMethod.untrained`; also heads."""
        heads = "untrained heads" if self.loss.heads is not None and self.step.value == 0 else ""
        return " and ".join(filter(None, (super().untrained, heads))).replace(" and untrained", " and")

    def compared(self, batch: Batch) -> list[Comparison]:
        """The images with their mean cosines, and for each layer a place; see :meth:`Method.compared`.

        Of several positives or negatives the first is taken.
        """
        samples = self.named_samples(batch)
        images = {"sr": ("SR", batch["sr"][0].detach())}
        for label, role, image in samples:
            images.setdefault(role, (label, image))
        anchors = [anchor[:1] for anchor in self._anchors(batch)]
        features = {"sr": anchors}
        for role, (_, image) in images.items():
            if role != "sr":
                with frozen(self.network):
                    features[role] = self.network(image[None].to(anchors[0].dtype))
        layers = self.loss.maps({self.roles[role]: x for role, x in features.items()}, self.roles["sr"])
        named = {self.roles[role]: image for role, image in images.items()}
        comparisons = compare_layers(layers, named, self.directions, strongest_place(batch["hr"]))
        sr, *others = (self.roles[role] for role in images)
        parts = self.shown(
            [(label, "anchor" if role == "sr" else role, image) for role, (label, image) in images.items()],
            [None, *(mean_cosine(layers, sr, other) for other in others)],
        )
        means = Comparison("images", "cosine, mean over places and layers", parts)
        return [replace(comparison, note=self.untrained) for comparison in (means, *comparisons)]

    def _anchors(self, batch: Batch) -> list[Tensor]:
        """The features that are to change, one a layer."""
        if self.layers:
            return [batch[feature_key(name)] for name in self.layers]
        with frozen(self.network):
            return list(self.network(batch["sr"]))

    def _contrast(self, batch: Batch, anchors: list[Tensor]) -> PositionContrast:
        """The mean over all positives (and negatives) of this step."""
        generator = self.generator(batch["hr"].device)
        with torch.no_grad(), frozen(self.network):
            images = draw([*self.positives, *self.negatives], batch, generator).to(batch["sr"].dtype)
            maps = [x.unflatten(0, images.shape[:2]).unbind(1) for x in self.network(images.flatten(0, 1))]
        count = sum(sample.count for sample in self.positives)
        keys = [list(layer) for layer in zip(*maps, strict=True)]
        found = self._contrasts(anchors, keys[:count], keys[count:], generator)
        to_lr = [contrast.lr_similarity for contrast in found if contrast.lr_similarity is not None]
        return PositionContrast(
            torch.stack([contrast.loss for contrast in found]).mean(),
            torch.stack([contrast.positive_similarity for contrast in found]).mean(),
            torch.stack(to_lr).mean() if to_lr else None,
        )

    def _contrasts(
        self,
        anchors: list[Tensor],
        positives: list[list[Tensor]],
        negatives: list[list[Tensor]],
        generator: torch.Generator,
    ) -> list[PositionContrast]:
        """One contrast for each positive (and negative), whose features come as one list of layers each."""
        raise NotImplementedError


def _loss_factory(
    kind: Callable[..., PositionLoss], name: str, contrast: str, **arguments: object
) -> Callable[..., PositionLoss]:
    if contrast not in NEGATIVES:
        raise ConfigError(f"{name}: contrast: expected one of {', '.join(NEGATIVES)}, got {describe(contrast)}.")
    return partial(kind, negatives=contrast, gather=contrast == "batch", **arguments)


class InfoNCE(PositionMethod):
    """Contrast of features with the HR image's features at the same place, in one direction (CRL-SR eq. 2).

    Without ``layers`` the SR image's features in the embedding are the anchors, and the gradient goes to the SR image.
    With ``layers`` they are the outputs of the SR network's own modules of these names, in its one forward pass on the
    LR images: what lies before them learns to carry what the HR image has at that place, as the paper's
    decoupling encoders do, on a network that needs no change. Such a network must be shown to the method once, by
    :meth:`attach`, before optimizers are made; the hosts do that.

    Terms: ``contrastive``. Figures: ``positive_similarity``. Trained parts: MLP heads, by the same loss on detached
    features (``contrast_head``), and an embedding that can learn, by PCL-SR's eq. 7 (``discriminator``). The paper
    trains all of it together and has no such embedding. Heads cost a second pass of all images through the embedding.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead, the share of the pixel loss's gradient to keep, at the SR image or, with ``layers``, at
            their outputs; e.g. 0.05.
        temperature: tau, above 0; the paper's 0.07.
        dim: of the vectors behind the heads; the paper's 256. None: no heads, features are compared as they are.
        positions: how many positions of each layer to sample, anew at each step. None: all of them.
        contrast: where negatives come from: ``"image"``, other positions of the same image, as in the paper, or
            ``"batch"``, those of all images on all ranks.
        layers: names of the SR network's modules, such as ``["body.7", "body.15"]`` of BasicSR's EDSR, one for each
            feature map of the embedding. None: the SR image's features in the embedding.
        embedding: a mapping such as ``{"type": "VGGFeatures"}``, or an embedding. Default: ``HaarDiscriminator``.
        train_embedding: whether the embedding learns. None: if it can.
        positives: mappings such as ``{"type": "Sharpen"}``, or sample generators; the loss is the mean over all of
            them. Default: the HR image.
        seed: seed of the randomness of samples and positions.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of the share to the next.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
        >>> method = InfoNCE(loss_weight=0.001, layers=["0"], embedding={"type": "HaarDiscriminator", "taps": 1})
        >>> method.attach(net)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(method.auxiliary_losses(batch))
        ['nce_discriminator', 'nce_contrast_head']
        >>> list(method.sr_losses(batch).terms)
        ['nce_contrastive']
    """

    loss: InfoNCELoss
    loss_type: type[InfoNCELoss] = InfoNCELoss
    directions: tuple[tuple[str, str], ...] = (("anchor", "candidates"),)
    roles: ClassVar[Mapping[str, str]] = {"sr": "anchor", "positive": "candidates"}

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 0.07,
        dim: int | None = 256,
        positions: int | None = 256,
        contrast: str = "image",
        layers: Sequence[str] | None = None,
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | None = None,
        positives: Sequence[SampleConfig] = HIGH_RESOLUTION,
        seed: int = 0,
        name: str = "nce",
        share_interval: int = 5,
    ) -> None:
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share, share_interval)
        loss = _loss_factory(self.loss_type, name, contrast, temperature=temperature, positions=positions)
        super().__init__(name, seed, weight, embedding, train_embedding, positives, None, layers, dim, loss)

    def _contrasts(
        self,
        anchors: list[Tensor],
        positives: list[list[Tensor]],
        negatives: list[list[Tensor]],
        generator: torch.Generator,
    ) -> list[PositionContrast]:
        return [self.loss.contrast(anchors, positive, generator) for positive in positives]


class BidirectionalNCE(InfoNCE):
    """:class:`InfoNCE` in both directions (CRL-SR eq. 3), the paper's loss for contrastive decoupling; same arguments.

    Example:
        >>> method = BidirectionalNCE(loss_share=0.05, dim=64)
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(method.auxiliary_losses(batch))
        ['nce_discriminator', 'nce_contrast_head']
    """

    loss_type = BidirectionalNCELoss
    directions = (("anchor", "candidates"), ("candidates", "anchor"))


class SRNCE(PositionMethod):
    """Conditional contrast of SR features with those of HR, given those of LR (CRL-SR eq. 4 to 6).

    Where features come from, what is trained and what it costs is said at :class:`InfoNCE`. Figures also:
    ``lr_similarity``, to the condition. Which of the two is larger says little while the embedding learns; where
    ``positive_similarity`` falls below 0, SR features are leaving HR.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead, the share of the pixel loss's gradient to keep, at the SR image or, with ``layers``, at
            their outputs; e.g. 0.05.
        temperature: tau, above 0; the paper has none in these equations.
        variant: ``"negative"``, ``"tempered"`` or ``"paper"``, see :func:`~contrastive_sr.functional.srnce`. The other
            two need a warm start, which features behind new heads of ``layers`` are not; so this default differs from
            the function's.
        dim: as in :class:`InfoNCE`.
        positions: likewise.
        contrast: likewise.
        layers: likewise.
        embedding: likewise.
        train_embedding: likewise.
        positives: likewise.
        negatives: mappings or sample generators: the condition, what SR features are to leave. The loss is the mean
            over all pairs with the positives. Default: the enlarged LR image.
        seed: seed of the randomness of samples and positions.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of the share to the next.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> method = SRNCE(loss_share=0.05, variant="negative", dim=64)
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(method.auxiliary_losses(batch))
        ['srnce_discriminator', 'srnce_contrast_head']
    """

    loss: SRNCELoss
    directions = (("hr", "sr"),)
    roles: ClassVar[Mapping[str, str]] = {"sr": "sr", "positive": "hr", "negative": "lr"}

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 0.07,
        variant: str = "negative",
        dim: int | None = 256,
        positions: int | None = 256,
        contrast: str = "image",
        layers: Sequence[str] | None = None,
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | None = None,
        positives: Sequence[SampleConfig] = HIGH_RESOLUTION,
        negatives: Sequence[SampleConfig] = UPSAMPLED,
        seed: int = 0,
        name: str = "srnce",
        share_interval: int = 5,
    ) -> None:
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share, share_interval)
        if layers and variant != "negative":
            warnings.warn(
                f"{name}: variant {variant!r} leads SR features away from HR unless they start near it, and those of "
                "`layers` start behind new heads. Use `variant: negative`.",
                stacklevel=2,
            )
        loss = _loss_factory(SRNCELoss, name, contrast, temperature=temperature, variant=variant, positions=positions)
        super().__init__(name, seed, weight, embedding, train_embedding, positives, negatives, layers, dim, loss)

    def _contrasts(
        self,
        anchors: list[Tensor],
        positives: list[list[Tensor]],
        negatives: list[list[Tensor]],
        generator: torch.Generator,
    ) -> list[PositionContrast]:
        return [self.loss.contrast(p, anchors, n, generator) for p in positives for n in negatives]
