"""Periodic dots: how strong a pattern of a given period an image has all over."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from contrastive_sr._checks import check_count
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import DataError
from contrastive_sr.evaluation.comparison import MetricNote
from contrastive_sr.evaluation.evaluate import Metric, NoReference
from contrastive_sr.evaluation.report import Results, own_values

MOST_EXCESS = 0.5
"""Grey levels above HR's own, as a mean over images, from which on a pattern is warned about."""


def periodic_pattern(image: UInt8Image, period: int) -> float:
    r"""The rms, in grey levels, of the mean pattern of a period.

    .. math::

        P_c(i, j) = \mathrm{mean}_{m, n} \, (x_c - w * x_c)(i + m p, j + n p), \qquad
        \mathrm{pattern} = \sqrt{\mathrm{mean}_{c, i, j} \, P_c(i, j)^2}

    for the colours :math:`c` and the phases :math:`0 \le i, j < p`. The local mean :math:`w` is that of a box of
    :math:`p \times p` pixels, taken twice: a tent of :math:`2p - 1`. It is symmetric, so that a constant and a linear
    ramp give 0, and any pattern of period p has its constant mean there, so that it passes unchanged. Counted are
    whole periods, where the tent lies inside the image.

    A network that works at one phase of a grid (pixel shuffle, strides, a wavelet transform without its other phases)
    can cover flat areas with such dots. A photograph has almost none, since its content knows no phase. The mean is
    over the whole image: dots in a tenth of it count a tenth. A pattern of period 2 is one of period 4, too.

    Args:
        image: RGB, (H, W, 3), uint8; at least 3 p - 2 pixels a side.
        period: p, in pixels, at least 2.

    Returns:
        From 0 to 127.5.

    Raises:
        ConfigError: another period.
        DataError: shape or dtype is another, or the image is smaller.

    Example:
        >>> image = np.full((32, 32, 3), 100, dtype=np.uint8)
        >>> periodic_pattern(image, 2)
        0.0
        >>> image[::2, ::2] += 4  # around their mean these are 3, -1, -1, -1
        >>> round(periodic_pattern(image, 2), 3)
        1.732
    """
    check_count(period, "periodic_pattern(period)", at_least=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"Expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}.")
    if min(image.shape[:2]) < _smallest(period):
        raise DataError(
            f"Expected an image of at least {_smallest(period)} pixels a side for a pattern of period {period}, got "
            f"{image.shape[1]} x {image.shape[0]}."
        )
    x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)
    local_mean = F.avg_pool2d(F.avg_pool2d(x, period, stride=1), period, stride=1)
    inside = slice(period - 1, 1 - period)
    high = x[:, inside, inside] - local_mean
    rows, columns = (length // period for length in high.shape[1:])
    whole = high[:, : rows * period, : columns * period].reshape(3, rows, period, columns, period)
    return float(whole.mean((1, 3)).square().mean().sqrt())


def _smallest(period: int) -> int:
    return 3 * period - 2


def pattern_excess(sr: UInt8Image, hr: UInt8Image, period: int) -> float:
    """How far the pattern of an SR image exceeds that of its HR image, in grey levels; below 0 where HR has more.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: of the same shape.
        period: in pixels, see :func:`periodic_pattern`.

    Raises:
        ConfigError: another period.
        DataError: images that cannot be measured, or of two shapes.

    Example:
        >>> hr = np.full((32, 32, 3), 100, dtype=np.uint8)
        >>> sr = hr.copy()
        >>> sr[:, ::2] += 2
        >>> pattern_excess(sr, hr, 2)
        1.0
    """
    if sr.shape != hr.shape:
        raise DataError(f"Expected two images of one shape, got {sr.shape} and {hr.shape}.")
    return periodic_pattern(sr, period) - periodic_pattern(hr, period)


def load_pattern(scale: int) -> dict[str, Metric]:
    """The metrics ``pattern_2`` and ``pattern_scale``, see :func:`periodic_pattern`, and HR's own values of both.

    Args:
        scale: how many times larger HR is; the period of ``pattern_scale``, which is left out up to scale 2.

    Returns:
        For each of the two a metric of its name, of the SR image, and one of this name behind ``hr_``, of the HR
        image. None for an image that is too small.

    Example:
        >>> list(load_pattern(4))
        ['pattern_2', 'hr_pattern_2', 'pattern_scale', 'hr_pattern_scale']
        >>> list(load_pattern(2))
        ['pattern_2', 'hr_pattern_2']
    """
    metrics: dict[str, Metric] = {}
    for name, period in _periods(scale).items():
        metrics[name] = NoReference(partial(_measured, period=period))
        metrics[f"hr_{name}"] = partial(_of_hr, period=period)
    return metrics


def _periods(scale: int) -> dict[str, int]:
    return {"pattern_2": 2, "pattern_scale": scale} if scale > 2 else {"pattern_2": 2}


def _of_hr(sr: UInt8Image, hr: UInt8Image, period: int) -> float | None:
    return _measured(hr, period)


def _measured(image: UInt8Image, period: int) -> float | None:
    return None if min(image.shape[:2]) < _smallest(period) else periodic_pattern(image, period)


def pattern_note(results: Results, scale: int) -> MetricNote:
    """What has to be said of the metrics of :func:`load_pattern`, with HR's own values, to compare with.

    Args:
        results: data set to method to means.
        scale: how many times larger HR is.
    """
    periods = _periods(scale)
    return MetricNote(
        "Pattern is the rms, in grey levels, of the mean pattern that repeats every "
        f"{' and every '.join(map(str, periods.values()))} pixels"
        + own_values(results, [f"hr_{name}" for name in periods], 2)
    )


def pattern_warnings(results: Results, scale: int) -> list[str]:
    """A sentence for each method and data set with a pattern of more than :data:`MOST_EXCESS` above HR's own.

    Of photos without HR images the pattern itself is taken; a sentence on these says that it may be their own.

    Args:
        results: data set to method to means.
        scale: how many times larger HR is.
    """
    found = []
    for data, methods in results.items():
        for method, row in methods.items():
            own = {period: row.get(f"hr_{name}") for name, period in _periods(scale).items()}
            excess = {
                period: value - (own[period] or 0.0)
                for name, period in _periods(scale).items()
                if (value := row[name]) is not None
            }
            if excess:
                worst = max(excess, key=excess.__getitem__)
                with_hr = own[worst] is not None
                found.append(excess_warning(f"{method} on {data}", excess[worst], worst, with_hr=with_hr))
    return [warning for warning in found if warning is not None]


def excess_warning(what: str, excess: float, period: int | None, *, with_hr: bool = True) -> str | None:
    """A sentence on a pattern of more than :data:`MOST_EXCESS` above HR's own; None if it is not.

    Args:
        what: whose, for the sentence.
        excess: see :func:`pattern_excess`; the mean over images.
        period: of the pattern, in pixels; None: the scale, whatever it is.
        with_hr: whether there are HR images; without them ``excess`` is the pattern of the SR images.

    Example:
        >>> excess_warning("Set5", 3.1, 4)[:44]
        'Set5: periodic dots, 3.10 grey levels above '
        >>> excess_warning("Set5", 0.1, 4)
    """
    if excess <= MOST_EXCESS:
        return None
    at = f"at a period of {'the scale' if period is None else f'{period} pixels'}"
    if not with_hr:
        return (
            f"{what}: a pattern of {excess:.2f} grey levels {at}: periodic dots, unless the photos are small and have "
            "it themselves. Look at flat areas of the images."
        )
    return (
        f"{what}: periodic dots, {excess:.2f} grey levels above HR's own {at}. Look at flat areas of the images; "
        "LPIPS rewards such dots."
    )
