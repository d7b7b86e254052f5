"""Losses as criteria: each compares SR with HR images and gives one value a place, or one an image."""

from contrastive_sr.criteria.adversarial import Adversarial
from contrastive_sr.criteria.base import Criterion
from contrastive_sr.criteria.build import CRITERIA, CriteriaByName, CriterionConfig
from contrastive_sr.criteria.pixel import Pixel
from contrastive_sr.criteria.registered import Registered
from contrastive_sr.criteria.ssim import SSIM
from contrastive_sr.criteria.vgg import VGG

__all__ = [
    "CRITERIA",
    "SSIM",
    "VGG",
    "Adversarial",
    "CriteriaByName",
    "Criterion",
    "CriterionConfig",
    "Pixel",
    "Registered",
]
