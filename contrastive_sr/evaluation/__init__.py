"""Image quality as the papers measure it, and what a network costs."""

from contrastive_sr.evaluation.cost import Cost, cost
from contrastive_sr.evaluation.metrics import luma, psnr_y, ssim_y

__all__ = ["Cost", "cost", "luma", "psnr_y", "ssim_y"]
