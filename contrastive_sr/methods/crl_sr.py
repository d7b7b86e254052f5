"""CRL-SR: "Blind Image Super-Resolution via Contrastive Representation Learning" (arXiv 2107.00708), the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr._checks import check_choice, check_count, check_flag
from contrastive_sr.embeddings import frozen
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.srnce import Variant as SRNCEVariant
from contrastive_sr.functional.srnce import check_variant
from contrastive_sr.losses import BidirectionalNCELoss, Contrast, InfoNCELoss, SRNCELoss
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Comparison, compare_layers, strongest_place
from contrastive_sr.methods.layers import feature_key
from contrastive_sr.methods.positions import PositionReduction
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch

Variant = Literal["a", "b", "c", "d", "e", "f"]


class Parts(NamedTuple):
    """A column of Table 1.

    Attributes:
        decoupling: whether there is contrastive decoupling encoding.
        refinement: which contrast the SR image's features have; None: none.
    """

    decoupling: bool
    refinement: Literal["srnce", "info_nce"] | None


VARIANTS: Mapping[str, Parts] = {
    "a": Parts(False, None),
    "b": Parts(False, "srnce"),
    "c": Parts(False, "info_nce"),
    "d": Parts(True, None),
    "e": Parts(True, "info_nce"),
    "f": Parts(True, "srnce"),
}


@register_method
class CRLSR(Method):
    """CRL-SR's training of :class:`contrastive_sr.networks.CRLSR`, and the six models of its Table 1.

    Decoupling (section 3.3): the features of the upsampled LR image and those that another encoder extracts from the HR
    image are drawn together by the bidirectional loss, eq. 3, so that both keep what they have in common. Refinement
    (section 3.4): a feature encoder sees HR and SR images; SR features are drawn to the HR features at the same place,
    conditioned on the LR features, eq. 6, and a reconstruction of the HR image, eq. 7, keeps the HR features rich. The
    SR image's own L1 loss, of eq. 8, is the host's pixel loss. The three networks that only training needs (HR encoder,
    feature encoder, reconstruction decoder) and the MLP heads are parts of this method.

    The paper trains all of it together. Here the gradient of each term at the SR network's step goes to the SR network
    alone, while the parts learn in their own step before it: the HR encoder and the decoupling's heads by the
    bidirectional loss, feature encoder and decoder by the reconstruction, and not by eq. 6, which they could lower by
    hiding the detail. The refinement's heads, which all three roles share, learn to find the place of an HR feature
    among the SR and among the LR features (eq. 2 twice; with InfoNCE, only among the SR features). If they learnt by
    eq. 6, whose penalty has no gradient, they would turn the LR features opposite to the SR ones, and the push would
    leave the pull without effect. ``joint`` is the paper's way: feature encoder, heads and the SR network's encoder all
    learn by eq. 6 too. For ``warmup_steps`` steps the refinement has no weight, because eq. 6 needs SR features that
    are already near the HR or the LR features (see :func:`~contrastive_sr.functional.srnce`).

    Terms: ``decoupling``, whose share is measured at the LR features, and ``refinement``, at the SR image. Metrics:
    ``decoupling_similarity``; ``positive_similarity`` and, with SRNCE, ``lr_similarity``. Trained parts:
    ``hr_encoder`` (eq. 3), ``reconstruction`` (eq. 7), ``refinement_head`` (eq. 2).

    Args:
        loss_weight: fixed weight of the refinement; the paper's is 1.
        loss_share: instead of a fixed weight, the share of the pixel loss's gradient to keep. If neither is given, the
            share is 0.05.
        decoupling_weight: fixed weight of the decoupling; the paper gives none.
        decoupling_share: instead of a fixed weight, the share to keep. If neither is given, the share is 0.05.
        variant: a letter of Table 1. ``"a"``: neither contrast. ``"b"``: SRNCE. ``"c"``: InfoNCE instead. ``"d"``:
            decoupling. ``"e"``: decoupling and InfoNCE. ``"f"``: decoupling and SRNCE, the paper's. Weights of parts
            that a variant does not have are not used.
        srnce_variant: ``"negative"``, ``"tempered"`` or ``"paper"``, see :func:`~contrastive_sr.functional.srnce`.
        warmup_steps: number of SR steps before the refinement counts.
        penalty: whether eq. 6 has the penalty of eq. 5; without it, ``srnce_variant="paper"`` is eq. 4.
        joint: whether all parts learn by the refinement too, as in the paper, from the first step on and with a weight
            of 1.
        reduction: of both contrasts, over the positions of all layers and images: ``"mean"``, or ``"sum"`` as in eq. 2.
        temperature: tau, above 0; the paper's is 0.07.
        dim: dimension of the vectors that the heads give; the paper's is 256.
        positions: how many positions of each layer to sample, anew at each step. None: all of them.
        seed: seed of the positions.
        name: prefix of everything that is logged.
        share_interval: number of steps from one measurement of a share to the next; measuring that of the decoupling
            takes a backward pass of the network.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> from contrastive_sr.methods import Methods
        >>> net = networks.CRLSR(channels=8, encoder_blocks=2, decoder_blocks=1)
        >>> methods = Methods([CRLSR(dim=16)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 48, 48)})
        >>> list(methods.auxiliary_losses(batch))
        ['crl_sr_hr_encoder', 'crl_sr_reconstruction', 'crl_sr_refinement_head']
    """

    paper = "CRL-SR"
    network = networks.CRLSR

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        decoupling_weight: float | None = None,
        decoupling_share: float | None = None,
        variant: Variant = "f",
        srnce_variant: SRNCEVariant = "negative",
        penalty: bool = True,
        joint: bool = False,
        reduction: PositionReduction = "mean",
        warmup_steps: int = 1000,
        temperature: float = 0.07,
        dim: int = 256,
        positions: int | None = 256,
        seed: int = 0,
        name: str = "crl_sr",
        share_interval: int = 25,
    ) -> None:
        check_choice(variant, list(VARIANTS), f"{name}: variant")
        parts = VARIANTS[variant]
        check_count(warmup_steps, f"{name}: warmup_steps", at_least=0)
        weights, metrics = {}, {}
        if parts.decoupling:
            weights["decoupling"] = TermWeight(
                f"{name}_decoupling", decoupling_weight, decoupling_share, interval=share_interval, key="decoupling_"
            )
            metrics["decoupling"] = ["decoupling_similarity"]
        if parts.refinement is not None:
            weights["refinement"] = TermWeight(
                f"{name}_refinement", loss_weight, loss_share, interval=share_interval, warmup_steps=warmup_steps
            )
            metrics["refinement"] = ["positive_similarity", *(["lr_similarity"] if parts.refinement == "srnce" else [])]
        super().__init__(name, seed=seed, weights=weights)
        self.parts, self.metrics = parts, metrics
        check_variant(srnce_variant, f"{name}: srnce_variant")
        check_count(dim, f"{name}: dim")
        InfoNCELoss(temperature=temperature, positions=positions)  # refuses them now, and not in build()
        self.settings: dict[str, Any] = {"temperature": temperature, "positions": positions, "reduction": reduction}
        self.srnce_variant: SRNCEVariant = srnce_variant
        self.dim = dim
        check_choice(reduction, get_args(PositionReduction), f"{name}: reduction")
        self.penalty, self.joint = check_flag(penalty, f"{name}: penalty"), check_flag(joint, f"{name}: joint")
        # Of the network's shape, so made in build().
        self.decoupling: BidirectionalNCELoss | None = None
        self.hr_encoder: networks.ImageEncoder | None = None
        self.places: InfoNCELoss | None = None  # the refinement's heads, and what they learn by
        self.srnce: SRNCELoss | None = None
        self.features: networks.ImageEncoder | None = None
        self.reconstruction: networks.ImageDecoder | None = None

    def check_network(self, net: nn.Module) -> None:
        """Refuse another network than the paper's; see :meth:`Method.check_network`."""
        if not isinstance(net, networks.CRLSR):
            raise ConfigError(
                f"{self.name}: expected contrastive_sr.networks.CRLSR as SR network, got {type(net).__name__}. On "
                "another network take the methods `BidirectionalNCE` and `SRNCE`."
            )

    def build(self, net: nn.Module, dry: Batch) -> None:
        """Make the training-only networks, in the shape of the SR network's; see :meth:`Method.build`."""
        assert isinstance(net, networks.CRLSR)
        layers = net.encoder.out_layers
        channels = [net.channels] * len(layers)
        if self.parts.decoupling:
            self.hr_encoder = net.new_encoder()
            self.decoupling = BidirectionalNCELoss(
                channels=channels, anchor_channels=channels, dim=self.dim, **self.settings
            )
        if self.parts.refinement is not None:
            self.features, self.reconstruction = net.new_encoder(), net.new_decoder()
            self.places = InfoNCELoss(channels=channels, dim=self.dim, **self.settings)
        if self.places is not None and self.parts.refinement == "srnce":
            self.srnce = SRNCELoss(
                variant=self.srnce_variant,
                penalty=self.penalty,
                detach_hr=not self.joint,
                detach_lr=not self.joint,
                **self.settings,
            )
            self.srnce.heads = self.srnce.anchor_heads = self.places.heads
        if self.parts.decoupling or self.srnce is not None:
            self.layers = tuple(f"encoder.{layer}" for layer in layers)
        self.to(next(net.parameters()))

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``hr_encoder``, with decoupling; ``reconstruction`` and ``refinement_head``, with refinement."""
        losses = {}
        hr = batch["hr"].to(batch["sr"])
        lr_maps = [x.detach() for x in self._lr_maps(batch)]
        if self.decoupling is not None and self.hr_encoder is not None:
            losses["hr_encoder"] = self.decoupling(lr_maps, self.hr_encoder(hr), step.generator(hr.device))
        if self.features is not None and self.reconstruction is not None:
            hr_maps = self.features(hr)
            losses["reconstruction"] = F.l1_loss(self.reconstruction(hr_maps[-1]).to(hr), hr)
            with torch.set_grad_enabled(self.joint):
                sr_maps = self.features(batch["sr"])
            losses["refinement_head"] = self._refinement_head(hr_maps, sr_maps, lr_maps, step)
        return {name: Contrast(loss) for name, loss in losses.items()}

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``decoupling`` and ``refinement``, as far as the variant has them."""
        terms = {}
        hr = batch["hr"].to(batch["sr"])
        lr_maps = self._lr_maps(batch)
        if self.decoupling is not None and self.hr_encoder is not None:
            with torch.no_grad(), frozen(self.hr_encoder):  # not frozen, autocast would take its weights as they were
                hr_maps = self.hr_encoder(hr)
            with frozen(self.decoupling):
                contrast = self.decoupling.contrast(lr_maps, hr_maps, step.generator(hr.device))
            similarity = {"decoupling_similarity": contrast.metrics["positive_similarity"]}
            terms["decoupling"] = Contrast(contrast.loss, similarity, points=lr_maps)
        if self.features is not None and self.places is not None:
            with frozen(self.features), frozen(self.places):
                with torch.no_grad():
                    hr_maps = self.features(hr)
                terms["refinement"] = self._refinement(hr_maps, self.features(batch["sr"]), lr_maps, step)
        return terms

    def _refinement(self, hr: list[Tensor], sr: list[Tensor], lr: list[Tensor], step: Step) -> Contrast:
        """Eq. 6 or, with InfoNCE, eq. 2, of the features of the three images."""
        generator = step.generator(hr[0].device)
        if self.srnce is not None:
            return self.srnce.contrast(hr, sr, lr, generator)
        assert self.places is not None
        return self.places.contrast(hr, sr, generator)

    def _refinement_head(self, hr: list[Tensor], sr: list[Tensor], lr: list[Tensor], step: Step) -> Tensor:
        """What the refinement's heads learn by, and with ``joint`` the feature encoder."""
        if self.joint:
            return self._refinement(hr, sr, lr, step).loss
        assert self.places is not None
        detached = [x.detach() for x in hr]
        others = [sr, lr] if self.srnce is not None else [sr]
        return torch.stack([self.places(detached, x, step.generator(x[0].device)) for x in others]).sum()

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """For each layer of the two contrasts a place; see :meth:`Method.compared`."""
        hr, size = batch["hr"].to(batch["sr"]), batch["hr"].shape[-2:]
        enlarged = F.interpolate(batch["lr"], size=size, mode="bicubic", align_corners=False)
        images = {"hr": ("HR", hr[0]), "sr": ("SR", batch["sr"][0].detach()), "lr": ("LR, enlarged", enlarged[0])}
        place = strongest_place(hr)
        by_term: list[tuple[str, Comparison]] = []
        if self.decoupling is not None and self.hr_encoder is not None:
            roles = {"anchor": self._lr_maps(batch), "candidates": self.hr_encoder(hr)}
            named = {"anchor": images["lr"], "candidates": images["hr"]}
            both = (("anchor", "candidates"), ("candidates", "anchor"))
            by_term += [("decoupling", x) for x in compare_layers(self.decoupling.maps(roles), named, both, place)]
        if self.features is not None and self.places is not None:
            roles = {"hr": self.features(hr), "sr": self.features(batch["sr"])}
            if self.srnce is not None:
                roles["lr"] = self._lr_maps(batch)
            layers = (self.srnce or self.places).maps(roles)
            named = {role: images[role] for role in roles}
            by_term += [("refinement", x) for x in compare_layers(layers, named, (("hr", "sr"),), place)]
        note = "untrained encoders and heads" if step.number == 0 else ""
        return [replace(x, title=f"{term}, {x.title}", note=note) for term, x in by_term]

    def _lr_maps(self, batch: Batch) -> list[Tensor]:
        """The features of the upsampled LR image, from the SR network's one pass; none if no part reads them."""
        return [batch[feature_key(name)] for name in self.layers]
