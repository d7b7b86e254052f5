"""One module per equation family, thin over :mod:`contrastive_sr.functional`."""

from contrastive_sr.losses.dual import DualContrastiveLoss
from contrastive_sr.losses.pcl import PCLLoss

__all__ = ["DualContrastiveLoss", "PCLLoss"]
