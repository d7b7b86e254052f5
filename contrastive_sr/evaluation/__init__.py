"""Image quality as the papers measure it, networks compared on data sets, and what a network costs."""

from contrastive_sr.evaluation.blur import blur_note, load_blur
from contrastive_sr.evaluation.comparison import Evaluation, MetricNote, NamedNetwork, compare_networks
from contrastive_sr.evaluation.cost import Cost, cost
from contrastive_sr.evaluation.data_sets import DataSet, LRSource, bicubic_lr, degraded_lr, given_lr
from contrastive_sr.evaluation.evaluate import (
    Metric,
    NoReference,
    Pair,
    Score,
    bicubic,
    bicubic_pair,
    evaluate,
    summary,
)
from contrastive_sr.evaluation.jaggedness import (
    jaggedness,
    jaggedness_excess,
    jaggedness_note,
    jaggedness_warnings,
    load_jaggedness,
)
from contrastive_sr.evaluation.metrics import luma, psnr_rgb, psnr_y, ssim_rgb, ssim_y
from contrastive_sr.evaluation.pattern import (
    load_pattern,
    pattern_excess,
    pattern_note,
    pattern_warnings,
    periodic_pattern,
)
from contrastive_sr.evaluation.study import Difference, Ledger, Measured, Result, Summary, paired_difference, summarise
from contrastive_sr.evaluation.tiles import super_resolve_in_tiles
from contrastive_sr.evaluation.upscale import sr_files, upscale

__all__ = [
    "Cost",
    "DataSet",
    "Difference",
    "Evaluation",
    "LRSource",
    "Ledger",
    "Measured",
    "Metric",
    "MetricNote",
    "NamedNetwork",
    "NoReference",
    "Pair",
    "Result",
    "Score",
    "Summary",
    "bicubic",
    "bicubic_lr",
    "bicubic_pair",
    "blur_note",
    "compare_networks",
    "cost",
    "degraded_lr",
    "evaluate",
    "given_lr",
    "jaggedness",
    "jaggedness_excess",
    "jaggedness_note",
    "jaggedness_warnings",
    "load_blur",
    "load_jaggedness",
    "load_pattern",
    "luma",
    "paired_difference",
    "pattern_excess",
    "pattern_note",
    "pattern_warnings",
    "periodic_pattern",
    "psnr_rgb",
    "psnr_y",
    "sr_files",
    "ssim_rgb",
    "ssim_y",
    "summarise",
    "summary",
    "super_resolve_in_tiles",
    "upscale",
]
