"""Image quality as the papers measure it, and what a network costs."""

from contrastive_sr.evaluation.cost import Cost, cost
from contrastive_sr.evaluation.evaluate import Pair, Score, bicubic, bicubic_pair, evaluate, summary
from contrastive_sr.evaluation.metrics import luma, psnr_y, ssim_y
from contrastive_sr.evaluation.tiles import super_resolve_in_tiles

__all__ = [
    "Cost",
    "Pair",
    "Score",
    "bicubic",
    "bicubic_pair",
    "cost",
    "evaluate",
    "luma",
    "psnr_y",
    "ssim_y",
    "summary",
    "super_resolve_in_tiles",
]
