"""Cria-CL: "Criteria Comparative Learning for Real-scene Image Super-Resolution" (TCSVT 2022), the training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from contrastive_sr._checks import check_choice, check_flag, check_number, check_shape, describe
from contrastive_sr.criteria import Adversarial, CriteriaByName, Criterion, CriterionConfig
from contrastive_sr.criteria.build import settings_of
from contrastive_sr.criteria.vgg import BOTTOM
from contrastive_sr.distributed import rank
from contrastive_sr.embeddings.vgg import VGGModel
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import Contrast, CriteriaLoss
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Compared, Comparison
from contrastive_sr.methods.later import Later
from contrastive_sr.methods.layers import feature_key
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.networks import CriteriaBranches
from contrastive_sr.samples import Batch

Variant = Literal[1, 2, 3, 4, 5, 6, 7]
Masks = Literal["losses", "images", "none"]
BRANCHES = ("align", "uniformity", "masks")
LOOK_INTERVAL = 50  # steps from one look at the masks to the next: each waits for the device
LEFT_ALONE = 1e-3  # a mask's mean
# The paper's partition: what compares pixels, and what may make up texture (section III, Anchor Selection).
STRUCTURE: tuple[dict[str, object], ...] = ({"type": "Pixel"}, {"type": "SSIM"}, {"type": "VGG", "layer": BOTTOM})
TEXTURE: tuple[dict[str, object], ...] = ({"type": "VGG"}, {"type": "Adversarial"})
# Eq. 11 beside the pixel loss, which is the host's.
SR_CRITERIA: tuple[dict[str, object], ...] = (
    {"type": "VGG", "weight": 1.0},
    {"type": "Adversarial", "weight": 0.005},
)


class Parts(NamedTuple):
    """A row of Table V.

    Attributes:
        criteria: whether there are a perceptual and an adversarial loss beside the pixel loss.
        align: whether there is the alignment, eq. 8.
        uniformity: whether there is the uniformity, eq. 9.
        projection: whether the network has branches and masks, eq. 10.
    """

    criteria: bool
    align: bool
    uniformity: bool
    projection: bool


VARIANTS: Mapping[int, Parts] = {
    1: Parts(False, False, False, False),
    2: Parts(True, False, False, False),
    3: Parts(True, True, False, False),
    4: Parts(True, False, True, False),
    5: Parts(True, True, True, False),
    6: Parts(True, False, False, True),
    7: Parts(True, True, True, True),
}


@register_method
class CriaCL(Method):
    r"""Cria-CL's training of :class:`contrastive_sr.networks.CriteriaBranches`, and the seven rows of its Table V.

    .. math:: \mathcal{L} = \alpha \mathcal{L}_{pix} + \beta \mathcal{L}_{per} + \gamma \mathcal{L}_{adv}
        + \lambda_a \mathcal{L}_{align} + \lambda_u \mathcal{L}_{unif}

    Eq. 11. The pixel loss is the host's. The perceptual and adversarial losses of the SR image are ``sr_criteria`` here
    (or, if that is empty, the host's). The alignment (eq. 8) is between the anchor and the positives, which are
    criteria of the image of the branch ``align``; the uniformity (eq. 9) is between the anchor and the negatives, which
    are criteria of the image of the branch ``uniformity``; on a network without branches (variants 3 to 5) both use the
    SR image. The two terms do not do what their names suggest: the alignment raises the anchor wherever it is below a
    positive, and the uniformity lowers all criteria; see :class:`~contrastive_sr.losses.CriteriaLoss`. For this reason
    each criterion is logged with its ``push``.

    The discriminators of adversarial criteria are parts of this method. In the method's own step, before the SR
    network's and on detached images, they learn to tell HR images from all the images that they judge.

    Terms: ``align`` and ``uniformity``, whose shares are measured at the branch's image, and one for each criterion of
    ``sr_criteria``, by the criterion's name. Metrics: ``align_<criterion>`` and ``uniformity_<criterion>``, the mean of
    each criterion, and with the suffix ``_push`` 1 if the term raises it and -1 if it lowers it; ``align_mask`` and
    ``uniformity_mask``, the mean of S and of 1 - S. Trained parts: ``<criterion>_discriminator``.

    Args:
        align_weight: lambda_a, fixed; the paper's is 0.01, beside a weight of 0.01 for the pixel loss.
        align_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given, the
            share is 0.05.
        uniformity_weight: lambda_u, fixed; the paper's is 0.01.
        uniformity_share: instead of a fixed weight, the share to keep. If neither is given, the share is 0.05.
        variant: a row of Table V. 1: the pixel loss alone. 2: 1 and ``sr_criteria``. 3: 2 and the alignment. 4: 2 and
            the uniformity. 5: 2 and both. 6: 2 with branches and masks. 7: everything, the paper's. Weights of parts
            that a variant does not have are not used.
        anchor: a criterion: a name (``"Pixel"``, ``"SSIM"``, ``"VGG"``, ``"Adversarial"``, or that of a loss of the
            host in use), or a mapping with ``type``, its arguments and, if wanted, a ``name``. Table VI: ``"Pixel"``,
            ``"VGG"`` or ``"Adversarial"``.
        positives: a list of criteria, each in that form. None: the paper's for this anchor, see below.
        negatives: a list of criteria, each in that form. None: the paper's.
        sr_criteria: criteria of the SR image, mappings that also have a ``weight`` or a ``share``. None: those of
            eq. 11.
        vgg_weights: the weights of VGG criteria that do not name any themselves: ``"torchvision"``, ``"timm"`` or a
            file. None: the paper's lists without their VGG criteria, which need pretrained weights.
        vgg_model: the model of VGG criteria that do not name one themselves: ``"vgg19"`` or ``"vgg16"``.
        masks: with branches, what S and 1 - S weight: ``"losses"`` (Fig. 4), the criteria's maps; ``"images"`` (as
            eq. 10), the images that are compared; ``"none"``: nothing. With ``"images"`` the HR image fills in what a
            mask leaves out: for a pixel criterion that amounts to the masked image, and other criteria do not see black
            holes.
        train_masks: whether the two terms train the masks too, as in the paper. The masks then learn to evade the
            terms: 1 - S goes to 0, and the branch ``uniformity`` is left alone. False: the masks learn from the SR
            image's losses only.
        exponent: eta, at least 1; the paper's is 2.
        t: above 0; the paper's is 2.
        detach_anchor: whether the alignment leaves the anchor alone, so that it cannot be made worse.
        normalize: whether to divide each criterion by a running mean of its size (kept in the saved state).
        name: prefix of everything that is logged.
        share_interval: number of steps from one measurement of a share to the next.

    The paper's lists are: anchor Pixel, positives SSIM and VGG's ``relu1_2``, negatives VGG's ``conv5_4`` and
    Adversarial. For other anchors the paper gives no lists; ours have the criteria of the anchor's kind (Pixel, SSIM,
    ``relu1_2``; or ``conv5_4``, Adversarial) as positives and those of the other kind as negatives. With VGG-16,
    ``conv5_3`` takes the place of ``conv5_4``.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> import torch
        >>> from contrastive_sr.methods import Methods
        >>> square = {"type": "Pixel", "norm": "l2"}
        >>> methods = Methods([CriaCL(variant=5, vgg_weights=None, positives=[square])])
        >>> net = nn.Upsample(scale_factor=4)
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 48, 48)})
        >>> list(methods.auxiliary_losses(batch))
        ['cria_adversarial_discriminator']
    """

    paper = "Cria-CL"

    def __init__(
        self,
        *,
        align_weight: float | None = None,
        align_share: float | None = None,
        uniformity_weight: float | None = None,
        uniformity_share: float | None = None,
        variant: Variant = 7,
        anchor: CriterionConfig = "Pixel",
        positives: Sequence[CriterionConfig] | None = None,
        negatives: Sequence[CriterionConfig] | None = None,
        sr_criteria: Sequence[Mapping[str, object]] | None = None,
        vgg_weights: str | Path | None = "torchvision",
        vgg_model: VGGModel = "vgg19",
        masks: Masks = "losses",
        train_masks: bool = False,
        exponent: float = 2.0,
        t: float = 2.0,
        detach_anchor: bool = False,
        normalize: bool = False,
        name: str = "cria",
        share_interval: int = 5,
    ) -> None:
        super().__init__(name)  # nothing is drawn
        check_choice(variant, list(VARIANTS), f"{name}: variant")
        check_choice(masks, get_args(Masks), f"{name}: masks")
        self.variant, self.parts, self.masks = variant, VARIANTS[variant], masks
        self.train_masks = check_flag(train_masks, f"{name}: train_masks")
        if not isinstance(vgg_weights, (str, Path, type(None))):
            raise ConfigError(
                f"{name}: vgg_weights: expected torchvision, timm, a file or null, got {describe(vgg_weights)}."
            )
        check_choice(vgg_model, get_args(VGGModel), f"{name}: vgg_model")
        self.vgg_weights, self.vgg_model = vgg_weights, vgg_model
        self.criteria = CriteriaByName()
        self.roles: dict[str, tuple[str, ...]] = {}  # by term: the names of the anchor and then of the others
        self.losses = nn.ModuleDict()  # by term
        self.sr_criteria: tuple[str, ...] = ()
        roles = {
            "align": (self.parts.align, align_weight, align_share, positives, "positives"),
            "uniformity": (self.parts.uniformity, uniformity_weight, uniformity_share, negatives, "negatives"),
        }
        roles = {role: settings for role, settings in roles.items() if settings[0]}
        for role, (_, weight, share, _, _) in roles.items():  # the weights first: they cost nothing to refuse
            self.weights[role] = TermWeight(f"{name}_{role}", weight, share, interval=share_interval, key=f"{role}_")
        settings: dict[str, Any] = {
            "exponent": check_number(exponent, f"{name}: exponent", at_least=1),
            "t": check_number(t, f"{name}: t", above=0),
            "detach_anchor": check_flag(detach_anchor, f"{name}: detach_anchor"),
            "normalize": check_flag(normalize, f"{name}: normalize"),
        }
        for role, (_, _, _, others, key) in roles.items():
            self._add_role(role, anchor, others, key)
            names = self.roles[role]
            self.losses[role] = CriteriaLoss(
                align_weight=1.0, uniformity_weight=1.0, count=len(names), anchor_name=names[0], **settings
            )
        if self.parts.criteria:
            self._add_sr_criteria(sr_criteria, share_interval)
        if self.parts.projection and self.roles:
            self.layers = BRANCHES
        self.metrics = {
            role: [
                *(f"{role}_{label}{end}" for label in labels for end in ("", "_push")),
                *([f"{role}_mask"] if self.layers and masks != "none" else []),
            ]
            for role, labels in self.roles.items()
        }
        both = sorted(set(self.roles.get("align", ())[1:]) & set(self.roles.get("uniformity", ())[1:]))
        if both:
            warnings.warn(
                f"{name}: {', '.join(both)} among positives and negatives at once: the alignment moves it to the "
                "anchor, and the uniformity lowers both. The paper's lists share nothing.",
                stacklevel=2,
            )
        self._left_alone: set[str] = set()  # roles that were warned of
        self._means: list[tuple[str, Later]] = []  # of masks

    def _add_role(self, role: str, anchor: CriterionConfig, others: Sequence[CriterionConfig] | None, key: str) -> None:
        """Build the anchor and the criteria that a term contrasts with it."""
        names = [self._add(anchor, "anchor")]
        if others is None:
            others = self._paper_s(anchor, key)
        elif not isinstance(others, Sequence) or isinstance(others, str) or not others:
            raise ConfigError(
                f"{self.name}: {key}: expected a list of at least one criterion, e.g. [SSIM], got {describe(others)}."
            )
        for index, config in enumerate(others):
            label = self._add(config, f"{key}[{index}]")
            if label in names:
                same = "the anchor" if label == names[0] else f"another of the {key}"
                raise ConfigError(
                    f"{self.name}: {key}[{index}]: expected criteria that differ, got {label!r}, which is {same} too. "
                    "Take it out."
                )
            for other in names:
                if self.criteria.alike(label, other):
                    raise ConfigError(
                        f"{self.name}: {key}[{index}]: expected criteria that differ, got {label!r}, which is always "
                        f"a multiple of {other!r}. Take it out."
                    )
            names.append(label)
        self.roles[role] = tuple(names)

    def _paper_s(self, anchor: CriterionConfig, key: str) -> list[CriterionConfig]:
        """Positives or negatives by the paper's two kinds of criteria."""
        same = settings_of(self._complete(anchor))
        kinds = [[settings_of(self._complete(config)) for config in kind] for kind in (STRUCTURE, TEXTURE)]
        if same not in kinds[0] + kinds[1]:
            raise ConfigError(
                f"{self.name}: the anchor {anchor!r} is none of the paper's criteria, so its {key} are not known. Give "
                f"them, e.g. `{key}: [SSIM]`."
            )
        own, other = (STRUCTURE, TEXTURE) if same in kinds[0] else (TEXTURE, STRUCTURE)
        known: list[CriterionConfig] = [
            config
            for config in (own if key == "positives" else other)
            if settings_of(self._complete(config)) != same and (config["type"] != "VGG" or self.vgg_weights is not None)
        ]
        if not known:
            raise ConfigError(
                f"{self.name}: without VGG (`vgg_weights: ~`) the paper has no {key} for the anchor {anchor!r}. Give "
                f"`{key}`, or `vgg_weights`."
            )
        return known

    def _add_sr_criteria(self, configs: Sequence[Mapping[str, object]] | None, share_interval: int) -> None:
        """Build the criteria of the SR image, and their weights."""
        if configs is None:
            configs = [config for config in SR_CRITERIA if config["type"] != "VGG" or self.vgg_weights is not None]
        example = "e.g. [{type: Adversarial, weight: 0.005}]"
        if not isinstance(configs, Sequence) or not all(isinstance(config, Mapping) for config in configs):
            raise ConfigError(
                f"{self.name}: sr_criteria: expected a list of mappings, {example}, got {describe(configs)}."
            )
        for index, config in enumerate(configs):
            where = f"sr_criteria[{index}]"
            weight: Any = config.get("weight")
            share: Any = config.get("share")
            if (weight is None) == (share is None):
                raise ConfigError(
                    f"{self.name}: {where}: expected one of `weight` and `share`, {example}, got {describe(config)}."
                )
            label = self._add({key: value for key, value in config.items() if key not in ("weight", "share")}, where)
            if label in self.weights:
                raise ConfigError(f"{self.name}: {where}: there is a term {label!r} already. Take one out.")
            name = f"{self.name}: {where}"
            self.weights[label] = TermWeight(name, weight, share, interval=share_interval, warn=False, key="")
            self.sr_criteria += (label,)

    def _complete(self, config: CriterionConfig) -> Mapping[str, object] | nn.Module:
        """A criterion's mapping; of VGG, with the model and the weights that all have."""
        if isinstance(config, str):
            config = {"type": config}
        if isinstance(config, Mapping) and config.get("type") == "VGG":
            config = {"weights": self.vgg_weights, "model": self.vgg_model, **config}
        return config

    def _add(self, config: CriterionConfig, where: str) -> str:
        config = self._complete(config)
        if isinstance(config, Mapping) and config.get("type") == "VGG" and config["weights"] is None:
            raise ConfigError(
                f"{self.name}: {where}: VGG needs pretrained weights, and `vgg_weights` is null. Give a file, "
                "torchvision or timm."
            )
        return self.criteria.add(config, f"{self.name}: {where}")

    def check_network(self, net: nn.Module) -> None:
        """Refuse an SR network whose branches are missing, or are not those of the variant."""
        missing = [part for part in BRANCHES if not isinstance(getattr(net, part, None), nn.Module)]
        if not self.parts.projection and not missing:
            raise ConfigError(
                f"{self.name}: variant {self.variant} has no branches and masks, but the SR network, "
                f"{type(net).__name__}, has. Take its trunk as the network, or variant 6 or 7."
            )
        if self.parts.projection and missing:
            advice = f"Take CriteriaBranches, e.g. with `trunk: {{type: {type(net).__name__}, ...}}`"
            if isinstance(net, CriteriaBranches):  # the released one
                advice = "Take its variant 'paper', since the branches of 'released' make no images"
            raise ConfigError(
                f"{self.name}: variant {self.variant} needs an SR network with the modules {', '.join(BRANCHES)}; "
                f"{type(net).__name__} has no {', '.join(missing)}. {advice}, or a variant from 1 to 5."
            )

    def build(self, net: nn.Module, dry: Batch) -> None:
        """Refuse branches that give images or masks of other sizes than the SR image; see :meth:`Method.build`."""
        for part, channels in zip(self.layers, (3, 3, 2), strict=False):
            size, shape = tuple(dry["sr"].shape[-2:]), tuple(dry[feature_key(part)].shape)
            if shape != (1, channels, *size):
                raise ConfigError(
                    f"{self.name}: expected the SR network's module {part!r} to give {(1, channels, *size)}, as large "
                    f"as its SR image, got {shape}. Upsample it there."
                )

    def check_batch(self, batch: Batch) -> None:
        """Refuse HR patches that a criterion cannot take; see :meth:`Method.check_batch`."""
        for criterion in self._all().values():
            criterion.check_size(*batch["hr"].shape[-2:])

    def trained_parts(self) -> dict[str, nn.Module]:
        """The discriminators."""
        return {
            f"{self.name}_{label}_discriminator": criterion.discriminator
            for label, criterion in self._all().items()
            if isinstance(criterion, Adversarial)
        }

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``<criterion>_discriminator``, one for each adversarial criterion."""
        losses = {}
        for label, criterion in self._all().items():
            if isinstance(criterion, Adversarial):
                judged = [self._judged(batch, role)[0] for role, names in self.roles.items() if label in names]
                if label in self.sr_criteria:
                    judged.append(batch["sr"])
                once = {id(image): image for image in judged}  # without branches they are all the SR image
                loss = criterion.discriminator_loss(batch["hr"].to(batch["sr"]), list(once.values()))
                losses[f"{label}_discriminator"] = Contrast(loss)
        return losses

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``sr_criteria``, ``align`` and ``uniformity``, as far as the variant has them."""
        hr = batch["hr"].to(batch["sr"])
        known: dict[tuple[str, str], Tensor] = {}  # without branches several terms are of the same criteria

        def value(label: str, role: str, image: Tensor) -> Tensor:
            key = (label, role if self.layers else "sr")
            if key not in known:
                known[key] = self._all()[label](image, hr)
            return known[key]

        terms = {label: Contrast(value(label, "sr", batch["sr"]).mean()) for label in self.sr_criteria}
        for role, names in self.roles.items():
            mask = self._mask(batch, role)
            metrics = {} if mask is None else {f"{role}_mask": mask.detach().mean()}
            if metrics and step.number % LOOK_INTERVAL == 0:
                self._means.append((role, Later(metrics[f"{role}_mask"])))
            image, mask = self._judged(batch, role)
            anchor, *others = (value(label, role, image) for label in names)
            contrast = self._contrast(role, anchor, dict(zip(names[1:], others, strict=True)), mask)
            metrics |= {f"{role}_{label}": metric for label, metric in contrast.metrics.items()}
            points = [batch[feature_key(role)]] if self.layers else None
            terms[role] = Contrast(contrast.loss, metrics, points)
        self._look()
        return terms

    def _contrast(self, role: str, anchor: Tensor, others: Mapping[str, Tensor], mask: Tensor | None) -> Contrast:
        """Eq. 8 or 9; the mask weights the term as it is."""
        loss = self.losses[role]
        assert isinstance(loss, CriteriaLoss)
        if role == "align":
            return loss.contrast(anchor, positives=others, mask=mask)
        return loss.contrast(anchor, negatives=others, mask=None if mask is None else 1 - mask)

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """For each term the image that is judged, its mask, and the criteria; see :meth:`Method.compared`."""
        hr = batch["hr"].to(batch["sr"])
        comparisons = []
        for role, names in self.roles.items():
            mask = self._mask(batch, role)
            image, _ = self._judged(batch, role)
            judged = f"image of the branch {role}" if self.layers else "SR"
            parts = [Compared(judged, "shown", image[0].clamp(0, 1)), Compared("HR", "shown", hr[0].clamp(0, 1))]
            if mask is not None:
                name = "S" if role == BRANCHES[0] else "1 - S"
                parts.append(Compared(f"mask {name}, mean", "shown", None, float(mask[0].mean()), heat=mask[0, 0]))
            for number, label in enumerate(names):
                values = self._all()[label](image, hr)[0, 0]
                kind = "anchor" if number == 0 else "positive" if role == "align" else "negative"
                heat = values if values.numel() > 1 else None
                parts.append(Compared(label, kind, None, float(values.mean()), heat=heat))
            new = any(isinstance(self._all()[label], Adversarial) for label in names) and step.number == 0
            note = "untrained discriminator" if new else ""
            comparisons.append(Comparison(role, "mean of the criterion, 0 for HR itself", parts, note))
        return comparisons

    def _look(self) -> None:
        """Say once that the masks leave a branch alone; its share then says nothing."""
        while self._means and self._means[0][1].is_there:
            role, later = self._means.pop(0)
            mean = later.read()
            if role not in self._left_alone and mean < LEFT_ALONE:
                self._left_alone.add(role)
                self._warn_of(role, mean)

    def _warn_of(self, role: str, mean: float) -> None:
        if rank() == 0:
            weight = self.weights[role]
            assert isinstance(weight, TermWeight)
            advice = (
                f"a smaller {role}_share" if weight.fixed is None else f"{role}_share, e.g. 0.05, for {role}_weight"
            )
            warnings.warn(
                f"{self.name}: the masks leave the branch {role!r} alone (mean {mean:.1g}), and so the SR image "
                f"does not learn from that term any more. Start anew with {advice}, or with a smaller weight or share "
                "of the adversarial criterion.",
                stacklevel=2,
            )

    def _judged(self, batch: Batch, role: str) -> tuple[Tensor, Tensor | None]:
        """The image that a term's criteria judge, its branch's or the SR image, and the weights of their maps."""
        if not self.layers:
            return batch["sr"], None
        image, mask = batch[feature_key(role)].to(batch["sr"]), self._mask(batch, role)
        if mask is not None and self.masks == "images":
            return mask * image + (1 - mask) * batch["hr"].to(image), None
        return image, mask

    def _mask(self, batch: Batch, role: str) -> Tensor | None:
        """S or 1 - S, (B, 1, H, W); None where nothing is masked."""
        if not self.layers or self.masks == "none":
            return None
        masks = batch[feature_key("masks")].to(batch["sr"])
        count, _, height, width = batch["sr"].shape
        check_shape(masks, (count, 2, height, width), f"{self.name}: the SR network's masks")
        index = BRANCHES.index(role)
        mask = masks[:, index : index + 1]
        return mask if self.train_masks else mask.detach()

    def _all(self) -> dict[str, Criterion]:
        """All criteria by name."""
        return {label: criterion for label, criterion in self.criteria.items() if isinstance(criterion, Criterion)}
