"""Losses as criteria: each compares SR with HR images and gives one value per pixel, or one per image."""

from contrastive_sr.criteria.adversarial import Adversarial as Adversarial
from contrastive_sr.criteria.base import CRITERIA as CRITERIA
from contrastive_sr.criteria.base import Criterion as Criterion
from contrastive_sr.criteria.base import register_criterion as register_criterion
from contrastive_sr.criteria.build import CriteriaByName as CriteriaByName
from contrastive_sr.criteria.build import CriterionConfig as CriterionConfig
from contrastive_sr.criteria.pixel import Pixel as Pixel
from contrastive_sr.criteria.registered import Registered as Registered
from contrastive_sr.criteria.ssim import MSSSIM as MSSSIM
from contrastive_sr.criteria.ssim import SSIM as SSIM
from contrastive_sr.criteria.vgg import VGG as VGG
