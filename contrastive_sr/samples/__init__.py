"""Positives and negatives for image-to-image contrast, made from HR and LR batches, or by a teacher."""

from contrastive_sr.samples.base import SAMPLES as SAMPLES
from contrastive_sr.samples.base import Batch as Batch
from contrastive_sr.samples.base import SampleGenerator as SampleGenerator
from contrastive_sr.samples.base import register_samples as register_samples
from contrastive_sr.samples.blur import GaussianBlur as GaussianBlur
from contrastive_sr.samples.build import SampleConfig as SampleConfig
from contrastive_sr.samples.build import build_samples as build_samples
from contrastive_sr.samples.build import draw as draw
from contrastive_sr.samples.images import HighResolution as HighResolution
from contrastive_sr.samples.images import OtherInstances as OtherInstances
from contrastive_sr.samples.images import UpsampledLowResolution as UpsampledLowResolution
from contrastive_sr.samples.past import PastOutput as PastOutput
from contrastive_sr.samples.pattern import PeriodicPattern as PeriodicPattern
from contrastive_sr.samples.sharpen import Sharpen as Sharpen
from contrastive_sr.samples.teacher import TeacherOutput as TeacherOutput
from contrastive_sr.samples.views import random_view as random_view
