"""One module per equation family, thin over :mod:`contrastive_sr.functional`."""

from contrastive_sr.losses.contrad import FakeContrastLoss, SimCLRLoss
from contrastive_sr.losses.criteria import CriteriaLoss
from contrastive_sr.losses.dual import DualContrastiveLoss
from contrastive_sr.losses.info_nce import BidirectionalNCELoss, InfoNCELoss
from contrastive_sr.losses.pcl import PCLLoss
from contrastive_sr.losses.queue import DegradationQueueLoss
from contrastive_sr.losses.regularization import ContrastiveRegularizationLoss
from contrastive_sr.losses.srnce import SRNCELoss

__all__ = [
    "BidirectionalNCELoss",
    "ContrastiveRegularizationLoss",
    "CriteriaLoss",
    "DegradationQueueLoss",
    "DualContrastiveLoss",
    "FakeContrastLoss",
    "InfoNCELoss",
    "PCLLoss",
    "SRNCELoss",
    "SimCLRLoss",
]
