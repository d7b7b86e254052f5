"""HR images to LR images on any device: blur, downsampling and noise, as in the blind super-resolution papers."""

from contrastive_sr.degradations.base import Degradation, Degraded
from contrastive_sr.degradations.functional import (
    bicubic_downsample,
    bicubic_upsample,
    blur,
    blur_variant,
    gaussian_kernels,
)
from contrastive_sr.degradations.kernels import (
    KERNELS,
    AnisotropicGaussian,
    IsotropicGaussian,
    Kernel,
    SpatiallyVariant,
)
from contrastive_sr.degradations.presets import (
    PRESETS,
    DegradationConfig,
    build_degradation,
    describe_presets,
    find_preset,
    preset_families,
)

__all__ = [
    "KERNELS",
    "PRESETS",
    "AnisotropicGaussian",
    "Degradation",
    "DegradationConfig",
    "Degraded",
    "IsotropicGaussian",
    "Kernel",
    "SpatiallyVariant",
    "bicubic_downsample",
    "bicubic_upsample",
    "blur",
    "blur_variant",
    "build_degradation",
    "describe_presets",
    "find_preset",
    "gaussian_kernels",
    "preset_families",
]
