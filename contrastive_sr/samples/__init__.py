"""Positives and negatives for image-to-image contrast, made from HR and LR batches, or by a teacher."""

from contrastive_sr.samples.base import Batch, SampleGenerator
from contrastive_sr.samples.blur import GaussianBlur
from contrastive_sr.samples.build import SAMPLES, SampleConfig, build_samples, draw
from contrastive_sr.samples.images import HighResolution, OtherInstances, UpsampledLowResolution
from contrastive_sr.samples.sharpen import Sharpen
from contrastive_sr.samples.teacher import TeacherOutput
from contrastive_sr.samples.views import random_view

__all__ = [
    "SAMPLES",
    "Batch",
    "GaussianBlur",
    "HighResolution",
    "OtherInstances",
    "SampleConfig",
    "SampleGenerator",
    "Sharpen",
    "TeacherOutput",
    "UpsampledLowResolution",
    "build_samples",
    "draw",
    "random_view",
]
