"""Positives and negatives for image-to-image contrast, made from HR and LR batches."""

from contrastive_sr.samples.base import Batch, SampleGenerator
from contrastive_sr.samples.blur import GaussianBlur
from contrastive_sr.samples.build import SAMPLES, SampleConfig, build_samples, draw
from contrastive_sr.samples.images import HighResolution, UpsampledLowResolution
from contrastive_sr.samples.sharpen import Sharpen

__all__ = [
    "SAMPLES",
    "Batch",
    "GaussianBlur",
    "HighResolution",
    "SampleConfig",
    "SampleGenerator",
    "Sharpen",
    "UpsampledLowResolution",
    "build_samples",
    "draw",
]
