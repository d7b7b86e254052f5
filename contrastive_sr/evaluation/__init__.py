"""Image quality as the papers measure it."""

from contrastive_sr.evaluation.metrics import luma, psnr_y, ssim_y

__all__ = ["luma", "psnr_y", "ssim_y"]
