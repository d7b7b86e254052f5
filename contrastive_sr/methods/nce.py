"""CRL-SR's contrasts of features, position by position, on any SR network: arXiv 2107.00708."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, get_args

from contrastive_sr._checks import check_choice
from contrastive_sr.functional.srnce import Variant
from contrastive_sr.losses import BidirectionalNCELoss, InfoNCELoss, SRNCELoss
from contrastive_sr.losses.positions import NegativesFrom
from contrastive_sr.methods.embedding import HIGH_RESOLUTION, UPSAMPLED, EmbeddingConfig, Phase
from contrastive_sr.methods.positions import PositionMethod, PositionReduction
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import SampleConfig


def over_positions(negatives_from: NegativesFrom, reduction: PositionReduction, name: str) -> dict[str, Any]:
    """The loss's settings for where negatives come from, those of the batch being those of all ranks, and for its sum.

    Raises:
        ConfigError: no such place, or no such reduction.
    """
    check_choice(negatives_from, get_args(NegativesFrom), f"{name}: negatives_from")
    check_choice(reduction, get_args(PositionReduction), f"{name}: reduction")
    return {"negatives_from": negatives_from, "gather": negatives_from == "batch", "reduction": reduction}


@register_method
class InfoNCE(PositionMethod):
    """Contrast of features with the HR image's features at the same place, in one direction (CRL-SR eq. 2).

    Without ``layers`` the SR image's features in the embedding are the anchors, and the gradient goes to the SR image.
    With ``layers`` the anchors are the outputs of the SR network's own modules of these names, in its one forward pass
    on the LR images: the part of the network before them learns to carry what the HR image has at that place, as the
    paper's decoupling encoders do. The network needs no change for that.

    Terms: ``contrastive``. Metrics: ``positive_similarity``. Trained parts: MLP heads, by the same loss on detached
    features (``contrast_head``), and an embedding that can learn, by PCL-SR's eq. 7 (``discriminator``). The paper
    trains all of it together and has no such embedding. Heads cost a second pass of all images through the embedding.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep, at the SR image or, with
            ``layers``, at their outputs. If neither is given, the share is 0.05.
        temperature: tau, above 0; the paper's is 0.07.
        dim: dimension of the vectors that the heads give; the paper's is 256. None: no heads, features are compared as
            they are.
        positions: how many positions of each layer to sample, anew at each step. None: all of them.
        negatives_from: ``"image"``, other positions of the same image, as in the paper, or
            ``"batch"``, those of all images on all ranks.
        reduction: over positions, images and layers: ``"mean"``, or ``"sum"``, as the paper prints eq. 2.
        layers: names of the SR network's modules, such as ``["body.7", "body.15"]`` of BasicSR's EDSR, one for each
            feature map of the embedding. None: the SR image's features in the embedding.
        embedding: a mapping such as ``{"type": "VGGFeatures"}``, or an embedding. Default:
            ``StationaryHaarDiscriminator``.
        train_embedding: whether the embedding learns; a whole number: only in the first so many steps of the training,
            as far as the method takes part in them. None: it learns if it can.
        positives: mappings such as ``{"type": "Sharpen"}``, or sample generators; the loss is the mean over all of
            them. Default: the HR image.
        seed: seed of the randomness of samples and positions.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper: whether the embedding's grid moves from step to step, so
            that dots that repeat with it do not go unnoticed.
        every: apply the term, and train the embedding, only once in this many steps; the term's weight is this many
            times as large there.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.PixelShuffle(4))
        >>> embedding = {"type": "HaarDiscriminator", "out_indices": [0]}
        >>> methods = Methods([InfoNCE(loss_weight=0.001, layers=["0"], embedding=embedding)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['nce_discriminator', 'nce_contrast_head']
    """

    paper = "CRL-SR"
    loss_type: type[InfoNCELoss] = InfoNCELoss
    roles: ClassVar[Mapping[str, str]] = {"sr": "anchor", "positive": "candidates"}
    directions: tuple[tuple[str, str], ...] = (("anchor", "candidates"),)
    metrics = {"contrastive": ("positive_similarity",)}  # noqa: RUF012 - never changed

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 0.07,
        dim: int | None = 256,
        positions: int | None = 256,
        negatives_from: NegativesFrom = "image",
        reduction: PositionReduction = "mean",
        layers: Sequence[str] | None = None,
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | int | None = None,
        positives: Sequence[SampleConfig] = HIGH_RESOLUTION,
        seed: int = 0,
        name: str = "nce",
        share_interval: int = 5,
        phase: Phase = "random",
        every: int = 1,
    ) -> None:
        super().__init__(
            name,
            seed=seed,
            weight=TermWeight(f"{name}_contrastive", loss_weight, loss_share, interval=share_interval),
            embedding=embedding,
            train_embedding=train_embedding,
            positives=positives,
            phase=phase,
            every=every,
        )
        over = over_positions(negatives_from, reduction, name)
        loss = partial(self.loss_type, temperature=temperature, positions=positions, **over)
        self.contrast_positions(loss, layers=layers, dim=dim)


@register_method
class BidirectionalNCE(InfoNCE):
    """:class:`InfoNCE` in both directions (CRL-SR eq. 3), the paper's loss for contrastive decoupling; same arguments.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> net, methods = torch.nn.Upsample(scale_factor=4), Methods([BidirectionalNCE(dim=64)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['nce_discriminator', 'nce_contrast_head']
    """

    loss_type = BidirectionalNCELoss
    directions = (("anchor", "candidates"), ("candidates", "anchor"))


@register_method
class SRNCE(PositionMethod):
    """Conditional contrast of SR features with those of HR, given those of LR (CRL-SR eq. 4 to 6).

    For where features come from, what is trained and what it costs, see :class:`InfoNCE`. One more metric:
    ``lr_similarity``, to the condition. Which of the two is larger says little while the embedding learns; where
    ``positive_similarity`` falls below 0, SR features are moving away from those of HR.

    Args:
        loss_weight: fixed weight of the term.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep, at the SR image or, with
            ``layers``, at their outputs. If neither is given, the share is 0.05.
        temperature: tau, above 0; the paper has none in these equations.
        variant: ``"negative"``, ``"tempered"`` or ``"paper"``, see :func:`~contrastive_sr.functional.srnce`. The other
            two need a warm start, which new heads for ``layers`` do not give.
        penalty: whether there is the penalty of eq. 5; without it, the variant ``"paper"`` is eq. 4.
        dim: dimension of the vectors that the heads give; the paper's is 256. None: no heads, features are compared as
            they are.
        positions: how many positions of each layer to sample, anew at each step. None: all of them.
        negatives_from: ``"image"`` or ``"batch"``, as in :class:`InfoNCE`.
        reduction: ``"mean"`` or ``"sum"``, as in :class:`InfoNCE`.
        layers: names of the SR network's modules, as in :class:`InfoNCE`. None: the SR image's features.
        embedding: a mapping such as ``{"type": "VGGFeatures"}``, or an embedding. Default:
            ``StationaryHaarDiscriminator``.
        train_embedding: whether the embedding learns; a whole number: only in the first so many steps of the training,
            as far as the method takes part in them. None: it learns if it can.
        positives: mappings or sample generators; the loss is the mean over all of them. Default: the HR image.
        negatives: mappings or sample generators: the condition, which SR features are to move away from. The loss is
            the mean over all pairs with the positives. Default: the enlarged LR image.
        seed: seed of the randomness of samples and positions.
        name: prefix of everything that is logged.
        share_interval: number of applications of the term from one measurement of the share to the next.
        phase: ``"random"``, or ``"fixed"`` as in the paper: whether the embedding's grid moves from step to step, so
            that dots that repeat with it do not go unnoticed.
        every: apply the term, and train the embedding, only once in this many steps; the term's weight is this many
            times as large there.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> net, methods = torch.nn.Upsample(scale_factor=4), Methods([SRNCE(dim=64)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['srnce_discriminator', 'srnce_contrast_head']
    """

    paper = "CRL-SR"
    roles: ClassVar[Mapping[str, str]] = {"sr": "sr", "positive": "hr", "negative": "lr"}
    directions = (("hr", "sr"),)
    metrics = {"contrastive": ("positive_similarity", "lr_similarity")}  # noqa: RUF012 - never changed

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        temperature: float = 0.07,
        variant: Variant = "negative",
        penalty: bool = True,
        dim: int | None = 256,
        positions: int | None = 256,
        negatives_from: NegativesFrom = "image",
        reduction: PositionReduction = "mean",
        layers: Sequence[str] | None = None,
        embedding: EmbeddingConfig | None = None,
        train_embedding: bool | int | None = None,
        positives: Sequence[SampleConfig] = HIGH_RESOLUTION,
        negatives: Sequence[SampleConfig] = UPSAMPLED,
        seed: int = 0,
        name: str = "srnce",
        share_interval: int = 5,
        phase: Phase = "random",
        every: int = 1,
    ) -> None:
        if layers and variant != "negative":
            warnings.warn(
                f"{name}: variant {variant!r} leads SR features away from HR unless they start near it, and those of "
                "`layers` start behind new heads. Use `variant: negative`.",
                stacklevel=2,
            )
        super().__init__(
            name,
            seed=seed,
            weight=TermWeight(f"{name}_contrastive", loss_weight, loss_share, interval=share_interval),
            embedding=embedding,
            train_embedding=train_embedding,
            positives=positives,
            negatives=negatives,
            phase=phase,
            every=every,
        )
        over = over_positions(negatives_from, reduction, name)
        loss = partial(
            SRNCELoss, temperature=temperature, variant=variant, penalty=penalty, positions=positions, **over
        )
        self.contrast_positions(loss, layers=layers, dim=dim)
