"""Positives and negatives for image-to-image contrast, made from HR and LR batches."""

from contrastive_sr.samples.base import Batch, SampleGenerator
from contrastive_sr.samples.blur import GaussianBlur
from contrastive_sr.samples.images import HighResolution, UpsampledLowResolution
from contrastive_sr.samples.sharpen import Sharpen

SAMPLES: dict[str, type[SampleGenerator]] = {
    cls.__name__: cls for cls in (Sharpen, GaussianBlur, HighResolution, UpsampledLowResolution)
}

__all__ = [
    "SAMPLES",
    "Batch",
    "GaussianBlur",
    "HighResolution",
    "SampleGenerator",
    "Sharpen",
    "UpsampledLowResolution",
]
