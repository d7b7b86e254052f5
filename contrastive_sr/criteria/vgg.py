"""The difference at one layer of VGG-19 or VGG-16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from contrastive_sr.criteria.base import CRITERIA, Criterion, check_images
from contrastive_sr.embeddings import VGGFeatures
from contrastive_sr.embeddings.vgg import CONFIGURATIONS, VGGModel
from contrastive_sr.functional.precision import at_least_float32

BOTTOM = "relu1_2"


@CRITERIA.register
class VGG(Criterion):
    """Difference of the activations of a VGG-19 or VGG-16 trained on ImageNet, as a mean over the channels.

    This is a perceptual loss. Cria-CL has a bottom layer among its positives and a top layer among its negatives, but
    does not say which layers. Ours are ``"relu1_2"`` and ``"conv5_4"`` of VGG-19, the layer of ESRGAN's perceptual
    loss, which the paper follows.

    Args:
        model: ``"vgg19"`` or ``"vgg16"``.
        layer: the name of a layer, as in :class:`~contrastive_sr.embeddings.VGGFeatures`. None: the last convolution,
            ``"conv5_4"`` of VGG-19 and ``"conv5_3"`` of VGG-16.
        weights: ``"torchvision"`` or ``"timm"``, which are downloaded once, or a file, as in
            :class:`~contrastive_sr.embeddings.VGGFeatures`.

    Raises:
        ConfigError: an unknown model or layer, or weights that are missing, cannot be downloaded or do not fit.
    """

    paper = "Cria-CL"

    def __init__(
        self, *, model: VGGModel = "vgg19", layer: str | None = None, weights: str | Path = "torchvision"
    ) -> None:
        super().__init__()
        self.features = VGGFeatures(model=model, layers=[_top(model)] if layer is None else [layer], weights=weights)
        (self.layer,) = self.features.layers

    @property
    def label(self) -> str:
        return f"{'vgg' if self.features.model == 'vgg19' else self.features.model}_{self.layer}"

    @classmethod
    def settings(cls, arguments: Mapping[str, object]) -> Mapping[str, object]:
        """See :meth:`Criterion.settings`."""
        return {**arguments, "layer": _top(arguments["model"])} if arguments["layer"] is None else arguments

    def check_size(self, height: int, width: int) -> None:
        """See :meth:`Criterion.check_size`."""
        self.features.check_size(height, width)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """A map, enlarged to (B, 1, H, W); see :meth:`Criterion.forward`."""
        check_images(sr, hr, "VGG")
        of_sr, of_hr = (at_least_float32(self.features(images)[0]) for images in (sr, hr.to(sr)))
        difference = (of_sr - of_hr).abs().mean(1, keepdim=True)
        return F.interpolate(difference, sr.shape[-2:], mode="bilinear", align_corners=False)


def _top(model: object) -> str:
    """The last convolution of a model; a name of no layer for what is no model, which VGGFeatures refuses."""
    known = CONFIGURATIONS.get(model) if isinstance(model, str) else None
    return known.last_of("conv")[-1] if known is not None else ""
