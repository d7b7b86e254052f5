"""CRL-SR: "Blind Image Super-Resolution via Contrastive Representation Learning" (arXiv 2107.00708), the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrastive_sr import networks
from contrastive_sr._checks import check_count, describe
from contrastive_sr.embeddings import frozen
from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.srnce import Variant, check_variant
from contrastive_sr.losses import BidirectionalNCELoss, InfoNCELoss, SRNCELoss
from contrastive_sr.methods.base import Method, Term
from contrastive_sr.methods.compared import Comparison, compare_layers, strongest_place
from contrastive_sr.methods.layers import feature_key
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch


class Model(NamedTuple):
    """A column of Table 1.

    Attributes:
        decoupling: whether there is contrastive decoupling encoding.
        refinement: which contrast the SR image's features have: ``"srnce"``, ``"info_nce"`` or none.
    """

    decoupling: bool
    refinement: str | None


MODELS = {
    "a": Model(False, None),
    "b": Model(False, "srnce"),
    "c": Model(False, "info_nce"),
    "d": Model(True, None),
    "e": Model(True, "info_nce"),
    "f": Model(True, "srnce"),
}


class CRLSR(Method):
    """CRL-SR's training of :class:`contrastive_sr.networks.CRLSR`, and the six models of its Table 1.

    Decoupling (section 3.3): the features of the upsampled LR image and those that another encoder finds in the HR
    image are drawn together by the bidirectional loss, eq. 3, so that both keep what they have in common. Refinement
    (section 3.4): a feature encoder sees HR and SR images; SR features are drawn to the HR features of their place on
    the condition of the LR features, eq. 6, and a reconstruction of the HR image, eq. 7, keeps the HR features rich.
    The SR image's own L1 loss, of eq. 8, is the host's pixel loss. The three networks that only training needs
    (HR encoder, feature encoder, reconstruction decoder) and the MLP heads are parts of this method.

    The paper trains all of it together. Here the gradient of each term at the SR network's step goes to the SR network
    alone, while the parts learn in their own step before it: the HR encoder and the decoupling's heads by the
    bidirectional loss, feature encoder and decoder by the reconstruction, and not by eq. 6, which they could lower by
    hiding the detail. The refinement's heads, which all three roles share, learn to find the place of an HR feature
    among the SR and among the LR features (eq. 2 twice; with InfoNCE, among the SR features). By eq. 6, whose penalty
    has no gradient, they would set LR features opposite to SR ones, and the push would leave the pull without effect.
    For ``warm_start`` steps the refinement has no weight, because eq. 6 needs SR features that are near to something
    (see :func:`~contrastive_sr.functional.srnce`).

    Terms: ``decoupling``, whose share is measured at the LR features, and ``refinement``, at the SR image. Figures:
    ``decoupling_similarity``; ``positive_similarity`` and, with SRNCE, ``lr_similarity``. Trained parts:
    ``hr_encoder`` (eq. 3), ``reconstruction`` (eq. 7), ``refinement_head`` (eq. 2).

    Args:
        loss_weight: fixed weight of the refinement; the paper's is 1.
        loss_share: instead, the share of the pixel loss's gradient to keep, e.g. 0.05.
        decoupling_weight: fixed weight of the decoupling; the paper gives none.
        decoupling_share: instead, its share.
        model: a letter of Table 1. ``"a"``: neither contrast. ``"b"``: SRNCE. ``"c"``: InfoNCE in its place. ``"d"``:
            decoupling. ``"e"``: decoupling and InfoNCE. ``"f"``: decoupling and SRNCE, the paper's. Weights of what
            a model does not have are not used.
        variant: of SRNCE: ``"tempered"``, ``"paper"`` or ``"negative"``.
        warm_start: SR steps before the refinement counts.
        temperature: tau, above 0; the paper's 0.07.
        dim: of the vectors behind the heads; the paper's 256.
        positions: how many positions of each layer to sample, anew at each step. None: all of them.
        seed: seed of the positions.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of a share to the next; that of the decoupling is a backward pass of
            the network.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> net = networks.CRLSR(channels=8, encoder_blocks=2, decoder_blocks=1)
        >>> method = CRLSR(loss_share=0.05, decoupling_share=0.05, dim=16)
        >>> method.attach(net)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 48, 48)})
        >>> list(method.auxiliary_losses(batch))
        ['crl_sr_hr_encoder', 'crl_sr_reconstruction', 'crl_sr_refinement_head']
        >>> list(method.sr_losses(batch, (batch["sr"] - batch["hr"]).abs().mean()).terms)
        ['crl_sr_decoupling', 'crl_sr_refinement']
    """

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        decoupling_weight: float | None = None,
        decoupling_share: float | None = None,
        model: str = "f",
        variant: Variant = "tempered",
        warm_start: int = 1000,
        temperature: float = 0.07,
        dim: int = 256,
        positions: int | None = 256,
        seed: int = 0,
        name: str = "crl_sr",
        share_interval: int = 25,
    ) -> None:
        if not isinstance(model, str) or model not in MODELS:
            raise ConfigError(f"{name}: model: expected one of {', '.join(MODELS)}, got {describe(model)}.")
        parts = MODELS[model]
        check_count(warm_start, f"{name}: warm_start", at_least=0)
        weights = {}
        if parts.decoupling:
            given = (decoupling_weight, decoupling_share)
            if given.count(None) != 1:
                raise ConfigError(
                    f"{name}: model {model!r} needs one of `decoupling_weight` and `decoupling_share` (e.g. 0.05), got "
                    f"{'neither' if given.count(None) else 'both'}."
                )
            weights["decoupling"] = TermWeight(f"{name}_decoupling", *given, share_interval, key="decoupling_")
        if parts.refinement is not None:
            weights["refinement"] = TermWeight(
                f"{name}_refinement", loss_weight, loss_share, share_interval, warm_start
            )
        super().__init__(name, seed, weights)
        self.model = parts
        check_variant(variant, f"{name}: variant")
        check_count(dim, f"{name}: dim")
        InfoNCELoss(temperature, positions=positions)  # refuses them now, and not in attach()
        self.variant, self.temperature, self.dim, self.positions = variant, temperature, dim, positions
        # Of the network's shape, so made in attach().
        self.decoupling: BidirectionalNCELoss | None = None
        self.hr_encoder: networks.ImageEncoder | None = None
        self.places: InfoNCELoss | None = None  # the refinement's heads, and what they learn by
        self.srnce: SRNCELoss | None = None
        self.features: networks.ImageEncoder | None = None
        self.reconstruction: networks.ImageDecoder | None = None
        self._attached = False

    def attach(self, net: nn.Module) -> None:
        """Build the training-only networks, in the shape of the SR network's; see :meth:`Method.attach`.

        Raises:
            ConfigError: another network, or a second call.
        """
        bare = net.module if isinstance(net, (DataParallel, DistributedDataParallel)) else net
        if not isinstance(bare, networks.CRLSR):
            raise ConfigError(
                f"{self.name}: expected contrastive_sr.networks.CRLSR as SR network, got {type(bare).__name__}. On "
                "another network take the methods `BidirectionalNCE` and `SRNCE`."
            )
        if self._attached:
            raise ConfigError(f"{self.name}: attach() was called before; its new parts would not be in the optimizer.")
        taps = bare.encoder.taps
        channels = [bare.channels] * len(taps)
        if self.model.decoupling:
            self.hr_encoder = bare.new_encoder()
            self.decoupling = BidirectionalNCELoss(
                self.temperature, channels, anchor_channels=channels, dim=self.dim, positions=self.positions
            )
        if self.model.refinement is not None:
            self.features, self.reconstruction = bare.new_encoder(), bare.new_decoder()
            self.places = InfoNCELoss(self.temperature, channels, dim=self.dim, positions=self.positions)
        if self.places is not None and self.model.refinement == "srnce":
            self.srnce = SRNCELoss(self.temperature, self.variant, positions=self.positions)
            self.srnce.heads = self.srnce.anchor_heads = self.places.heads
        if self.model.decoupling or self.srnce is not None:
            self.layers = tuple(f"encoder.{tap}" for tap in taps)
        self.to(next(bare.parameters()))
        self._attached = True

    @classmethod
    def example(cls, scale: int) -> tuple[Method, nn.Module | None]:
        """With its network; see :meth:`Method.example`."""
        return super().example(scale)[0], networks.CRLSR(scale=scale)

    def run(self, net: Callable[[Tensor], Tensor], batch: Batch, layers: Sequence[str] = ()) -> dict[str, Tensor]:
        """Super-resolve the batch, and keep the LR features; see :meth:`Method.run`.

        Raises:
            ConfigError: :meth:`attach` was not called.
        """
        if not self._attached:
            raise ConfigError(
                f"{self.name}: its networks do not exist yet. Call attach(net) once, before the optimizers are made "
                "from parameters()."
            )
        return super().run(net, batch, layers)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not self._attached and self.model != MODELS["a"]:
            raise ConfigError(
                f"{self.name}: the networks that a state is for do not exist yet. Call attach(net) before "
                "load_state_dict()."
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def auxiliary_terms(self, batch: Batch) -> dict[str, Tensor]:
        """``hr_encoder``, with decoupling; ``reconstruction`` and ``refinement_head``, with refinement.

        Args:
            batch: what :meth:`run` returned.
        """
        losses = {}
        hr = batch["hr"].to(batch["sr"])
        lr_maps = [x.detach() for x in self._lr_maps(batch)]
        if self.decoupling is not None and self.hr_encoder is not None:
            losses["hr_encoder"] = self.decoupling(lr_maps, self.hr_encoder(hr), self.generator(hr.device))
        if self.features is not None and self.reconstruction is not None:
            hr_maps = self.features(hr)
            losses["reconstruction"] = F.l1_loss(self.reconstruction(hr_maps[-1]).to(hr), hr)
            with torch.no_grad():
                sr_maps = self.features(batch["sr"])
            detached = [x.detach() for x in hr_maps]
            assert self.places is not None
            losses["refinement_head"] = self.places(detached, sr_maps, self.generator(hr.device))
            if self.srnce is not None:
                among_lr = self.places(detached, lr_maps, self.generator(hr.device))
                losses["refinement_head"] = losses["refinement_head"] + among_lr
        return losses

    def terms(self, batch: Batch) -> dict[str, Term]:
        """``decoupling`` and ``refinement``, as far as the model has them.

        Args:
            batch: what :meth:`run` returned.
        """
        terms = {}
        hr = batch["hr"].to(batch["sr"])
        lr_maps = self._lr_maps(batch)
        if self.decoupling is not None and self.hr_encoder is not None:
            with torch.no_grad():
                hr_maps = self.hr_encoder(hr)
            with frozen(self.decoupling):
                contrast = self.decoupling.contrast(lr_maps, hr_maps, self.generator(hr.device))
            terms["decoupling"] = Term(
                contrast.loss, {"decoupling_similarity": contrast.positive_similarity}, points=lr_maps
            )
        if self.features is not None and self.places is not None:
            with torch.no_grad():
                hr_maps = self.features(hr)
            with frozen(self.features), frozen(self.places):
                sr_maps, generator = self.features(batch["sr"]), self.generator(hr.device)
                if self.srnce is not None:
                    contrast = self.srnce.contrast(hr_maps, sr_maps, lr_maps, generator)
                else:
                    contrast = self.places.contrast(hr_maps, sr_maps, generator)
            figures = {"positive_similarity": contrast.positive_similarity}
            if contrast.lr_similarity is not None:
                figures["lr_similarity"] = contrast.lr_similarity
            terms["refinement"] = Term(contrast.loss, figures)
        return terms

    def compared(self, batch: Batch) -> list[Comparison]:
        """For each layer of the two contrasts a place; see :meth:`Method.compared`."""
        hr, size = batch["hr"].to(batch["sr"]), batch["hr"].shape[-2:]
        enlarged = F.interpolate(batch["lr"], size=size, mode="bicubic", align_corners=False)
        images = {"hr": ("HR", hr[0]), "sr": ("SR", batch["sr"][0].detach()), "lr": ("LR, enlarged", enlarged[0])}
        place = strongest_place(hr)
        found = []
        if self.decoupling is not None and self.hr_encoder is not None:
            roles = {"anchor": self._lr_maps(batch), "candidates": self.hr_encoder(hr)}
            named = {"anchor": images["lr"], "candidates": images["hr"]}
            both = (("anchor", "candidates"), ("candidates", "anchor"))
            layers = self.decoupling.maps(roles, "anchor")
            found += [("decoupling", x) for x in compare_layers(layers, named, both, place)]
        if self.features is not None and self.places is not None:
            roles = {"hr": self.features(hr), "sr": self.features(batch["sr"])}
            if self.srnce is not None:
                roles["lr"] = self._lr_maps(batch)
            layers = (self.srnce or self.places).maps(roles, "sr")
            named = {role: images[role] for role in roles}
            found += [("refinement", x) for x in compare_layers(layers, named, (("hr", "sr"),), place)]
        note = "untrained encoders and heads" if self.step.value == 0 else ""
        return [replace(x, title=f"{term}, {x.title}", note=note) for term, x in found]

    def _lr_maps(self, batch: Batch) -> list[Tensor]:
        """The features of the upsampled LR image, from the SR network's one pass; none if no part reads them."""
        return [batch[feature_key(name)] for name in self.layers]
