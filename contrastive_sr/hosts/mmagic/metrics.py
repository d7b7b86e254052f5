"""Periodic dots and jagged edges as metrics of MMagic's validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmengine.logging import print_log
from torch import Tensor

from contrastive_sr._checks import check_count
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation.jaggedness import jaggedness_excess, jaggedness_warning
from contrastive_sr.evaluation.pattern import excess_warning, pattern_excess
from contrastive_sr.hosts.mmagic.registry import METRICS


class _Excess(BaseSampleWiseMetric):
    """What SR images have too much of: the mean over images, with a warning in the log."""

    def excess(self, sr: UInt8Image, hr: UInt8Image) -> float:
        """Of one image."""
        raise NotImplementedError

    def warning(self, excess: float) -> str | None:
        """What is said of the mean, if anything."""
        raise NotImplementedError

    def process_image(self, gt: Tensor, pred: Tensor, mask: Tensor) -> float:
        """The excess of one image.

        Args:
            gt: (3, H, W) in [0, 255].
            pred: of the same shape.
            mask: not used.
        """
        return self.excess(_as_image(pred), _as_image(gt))

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """The mean over images."""
        means: dict[str, float] = super().compute_metrics(results)
        if warning := self.warning(means[self.metric]):
            print_log(warning, logger="current", level=logging.WARNING)
        return means


@METRICS.register_module()
class Pattern(_Excess):
    """How far the pattern of SR images exceeds HR's own, in grey levels: logged as ``PATTERN``, the mean over images.

    See :func:`contrastive_sr.evaluation.pattern.periodic_pattern`. Above
    :data:`contrastive_sr.evaluation.pattern.MOST_EXCESS` there is a warning in the log.

    Args:
        period: in pixels, usually the scale. A pattern of period 2 is one of period 4, too.
        gt_key: of the HR images.
        pred_key: of the SR images.
        collect_device: where results of several ranks are collected, ``cpu`` or ``gpu``.
        prefix: of the name in the log, as with any metric.

    Raises:
        ConfigError: a period below 2.
    """

    metric = "PATTERN"

    def __init__(
        self,
        *,
        period: int,
        gt_key: str = "gt_img",
        pred_key: str = "pred_img",
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        check_count(period, "Pattern(period)", at_least=2)
        super().__init__(gt_key=gt_key, pred_key=pred_key, collect_device=collect_device, prefix=prefix)
        self.period = period

    def excess(self, sr: UInt8Image, hr: UInt8Image) -> float:
        """Of one image, in grey levels."""
        return pattern_excess(sr, hr, self.period)

    def warning(self, excess: float) -> str | None:
        """On dots."""
        return excess_warning("Validation", excess, self.period)


@METRICS.register_module()
class Jaggedness(_Excess):
    """How much more jagged edges are than bicubic enlargement makes them: logged as ``JAGGEDNESS``, a mean over images.

    See :func:`contrastive_sr.evaluation.jaggedness.jaggedness_excess`; images are RGB, and one without straight edges
    counts as 0. Above :data:`contrastive_sr.evaluation.jaggedness.MOST_MORE_JAGGED` there is a warning in the log.

    Args:
        scale: how many times larger HR is than LR.
        gt_key: of the HR images.
        pred_key: of the SR images.
        collect_device: where results of several ranks are collected, ``cpu`` or ``gpu``.
        prefix: of the name in the log, as with any metric.

    Raises:
        ConfigError: a scale below 1.
    """

    metric = "JAGGEDNESS"

    def __init__(
        self,
        *,
        scale: int,
        gt_key: str = "gt_img",
        pred_key: str = "pred_img",
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        check_count(scale, "Jaggedness(scale)")
        super().__init__(gt_key=gt_key, pred_key=pred_key, collect_device=collect_device, prefix=prefix)
        self.scale = scale

    def excess(self, sr: UInt8Image, hr: UInt8Image) -> float:
        """Of one image."""
        return jaggedness_excess(sr, hr, self.scale)

    def warning(self, excess: float) -> str | None:
        """On teeth."""
        return jaggedness_warning("Validation", excess)


def _as_image(x: Tensor) -> UInt8Image:
    image: UInt8Image = x.float().round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return image
