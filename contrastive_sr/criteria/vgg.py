"""The difference at one layer of VGG-19."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from contrastive_sr.criteria.base import CRITERIA, Criterion, check_images
from contrastive_sr.embeddings import VGGFeatures
from contrastive_sr.functional.precision import at_least_float32

BOTTOM, TOP = "relu1_2", "conv5_4"


@CRITERIA.register
class VGG(Criterion):
    """Difference of the activations of a VGG-19 trained on ImageNet, as a mean over the channels: a perceptual loss.

    Cria-CL has a bottom layer among its positives and a top layer among its negatives, and does not say which. Ours are
    ``"relu1_2"`` and ``"conv5_4"``, the layer of ESRGAN's perceptual loss, which the paper follows.

    Args:
        layer: the name of a layer, as in :class:`~contrastive_sr.embeddings.VGGFeatures`.
        weights: ``"torchvision"`` or ``"timm"``, which download them once, or a file, as in
            :class:`~contrastive_sr.embeddings.VGGFeatures`.

    Raises:
        ConfigError: an unknown layer, or weights that are missing, cannot be downloaded or do not fit.
    """

    def __init__(self, *, layer: str = TOP, weights: str | Path = "torchvision") -> None:
        super().__init__()
        self.layer = layer
        self.features = VGGFeatures(layers=[layer], weights=weights)

    @property
    def label(self) -> str:
        return f"vgg_{self.layer}"

    def check_size(self, height: int, width: int) -> None:
        """See :meth:`Criterion.check_size`."""
        self.features.check_size(height, width)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """A map, enlarged to (B, 1, H, W); see :meth:`Criterion.forward`."""
        check_images(sr, hr, "VGG")
        of_sr, of_hr = (at_least_float32(self.features(images)[0]) for images in (sr, hr.to(sr)))
        difference = (of_sr - of_hr).abs().mean(1, keepdim=True)
        return F.interpolate(difference, sr.shape[-2:], mode="bilinear", align_corners=False)
