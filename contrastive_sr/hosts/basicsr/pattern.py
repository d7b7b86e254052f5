"""Periodic dots and jagged edges as metrics of BasicSR's validation; imports no host."""

from __future__ import annotations

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation.jaggedness import jaggedness_excess
from contrastive_sr.evaluation.pattern import pattern_excess


def calculate_pattern(img: UInt8Image, img2: UInt8Image, *, period: int, better: str = "lower") -> float:
    """How far the pattern of an SR image exceeds HR's own, in grey levels: ``{type: calculate_pattern, period: 4}``.

    See :func:`contrastive_sr.evaluation.pattern.periodic_pattern`. Our models warn in the log if the mean over a data
    set is above :data:`contrastive_sr.evaluation.pattern.MOST_EXCESS`.

    Args:
        img: SR, (H, W, 3), uint8; BGR or RGB, which is the same here.
        img2: HR.
        period: in pixels, usually the scale. A pattern of period 2 is one of period 4, too.
        better: not used here; BasicSR reads it in the option file to log the best value, which is the lowest.

    Raises:
        ConfigError: another period.
        DataError: images of another shape or dtype, or too small.
    """
    return pattern_excess(img, img2, period)


def calculate_jaggedness(img: UInt8Image, img2: UInt8Image, *, scale: int, better: str = "lower") -> float:
    """How much more jagged edges are than bicubic enlargement makes them: ``{type: calculate_jaggedness, scale: 4}``.

    See :func:`contrastive_sr.evaluation.jaggedness.jaggedness_excess`. Our models warn in the log if the mean over a
    data set is above :data:`contrastive_sr.evaluation.jaggedness.MOST_MORE_JAGGED`.

    Args:
        img: SR, (H, W, 3), uint8, BGR.
        img2: HR; an image without straight edges counts as 0.
        scale: how many times larger HR is than LR.
        better: not used here; BasicSR reads it in the option file to log the best value, which is the lowest.

    Raises:
        ConfigError: a scale below 1.
        DataError: images of another shape or dtype.
    """
    return jaggedness_excess(img[..., ::-1], img2[..., ::-1], scale)
