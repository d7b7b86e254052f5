"""One module per equation family, thin over :mod:`contrastive_sr.functional`."""

from contrastive_sr.losses.contrad import FakeContrastLoss as FakeContrastLoss
from contrastive_sr.losses.contrad import SimCLRLoss as SimCLRLoss
from contrastive_sr.losses.contrast import Contrast as Contrast
from contrastive_sr.losses.criteria import CriteriaLoss as CriteriaLoss
from contrastive_sr.losses.distance import FeatureDistanceLoss as FeatureDistanceLoss
from contrastive_sr.losses.dual import DualContrastiveLoss as DualContrastiveLoss
from contrastive_sr.losses.images import ImageContrastLoss as ImageContrastLoss
from contrastive_sr.losses.info_nce import BidirectionalNCELoss as BidirectionalNCELoss
from contrastive_sr.losses.info_nce import InfoNCELoss as InfoNCELoss
from contrastive_sr.losses.queue import DegradationQueueLoss as DegradationQueueLoss
from contrastive_sr.losses.srnce import SRNCELoss as SRNCELoss
