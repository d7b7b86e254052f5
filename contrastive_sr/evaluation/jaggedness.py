"""Jagged edges: how much an image changes along edges that are straight in HR."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive_sr._checks import check_count
from contrastive_sr.data.images import UInt8Image, as_image
from contrastive_sr.errors import DataError
from contrastive_sr.evaluation.comparison import MetricNote
from contrastive_sr.evaluation.evaluate import Metric, bicubic, bicubic_pair, cropped
from contrastive_sr.evaluation.metrics import luma
from contrastive_sr.evaluation.report import Results, own_values

MOST_MORE_JAGGED = 0.04
"""Above bicubic enlargement, as a mean over images, from which on jagged edges are warned about."""
_COHERENCE = 0.95
_STRENGTH = 6.0
_FEWEST = 64


def jaggedness(sr: UInt8Image, hr: UInt8Image, scale: int) -> float | None:
    r"""The rms change along the straight edges of HR, relative to that across them.

    .. math::

        J = w * w * \nabla y_{HR} \nabla y_{HR}^\top, \quad \text{eigenvalues } \lambda_1 \ge \lambda_2, \quad
        \text{eigenvectors } n, t; \qquad
        \mathrm{jaggedness} = \sqrt{\frac{\sum_E (t \cdot \nabla y_{SR})^2}{\sum_E (n \cdot \nabla y_{SR})^2}}

    with Y as PSNR has it, gradients of 2 x 2 pixels, which see a change at each second pixel, and a box :math:`w` of
    twice the scale, at least 8 pixels, taken twice. Straight edges :math:`E` are where
    :math:`\lambda_1 - \lambda_2 \ge 0.95 \, (\lambda_1 + \lambda_2)` and :math:`\sqrt{\lambda_1} \ge 6` grey levels a
    pixel: J is the structure tensor (Bigün and Granlund, "Optimal orientation detection of linear symmetry", 1987),
    and the first its coherence.

    Where a network sharpens each pixel of the shuffle by itself, edges get teeth, or stairs of the scale. Dots have one
    phase all over the image, which `periodic_pattern` finds; teeth follow their edge and have none. The blur of an edge
    changes both sums alike.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: of the same shape; it says where straight edges are, and in which direction.
        scale: how many times larger HR is than LR. As many pixels are left out at every edge of the image.

    Returns:
        0 for smooth edges, 1 for as much change along as across; None for an image with fewer than 64 pixels on
        straight edges.

    Raises:
        ConfigError: a scale below 1.
        DataError: images of another shape or dtype, or of two shapes.

    Example:
        >>> import numpy as np
        >>> hr = np.zeros((64, 64, 3), dtype=np.uint8)
        >>> hr[:, 32:] = 200
        >>> sr = hr.copy()
        >>> sr[::2, 32] = 0  # in every second row the edge is one pixel further right
        >>> jaggedness(hr, hr, 4), jaggedness(sr, hr, 4)
        (0.0, 1.0)
    """
    check_count(scale, "jaggedness(scale)")
    if sr.shape != hr.shape:
        raise DataError(f"Expected two images of one shape, got {sr.shape} and {hr.shape}.")
    box = 2 * max(scale, 4)
    sr_y, hr_y = (torch.from_numpy(luma(image)[scale:-scale, scale:-scale]) for image in (sr, hr))
    if min(hr_y.shape) < 2 * box:
        return None
    xx, xy, yy = _structure_tensor(hr_y, box)
    half_difference, half_sum = torch.hypot((xx - yy) / 2, xy), (xx + yy) / 2
    straight = (half_difference >= _COHERENCE * half_sum) & (half_sum + half_difference >= _STRENGTH**2)
    if int(straight.sum()) < _FEWEST:
        return None
    angle = torch.atan2(2 * xy, xx - yy)[straight] / 2
    inside = slice(box - 1, 1 - box)
    across, down = (part[inside, inside][straight] for part in _gradient(sr_y))
    along = (down * angle.cos() - across * angle.sin()).square().sum()
    over = (across * angle.cos() + down * angle.sin()).square().sum()
    return float((along / over).sqrt()) if along > 0 else 0.0


def _gradient(y: Tensor) -> tuple[Tensor, Tensor]:
    """Across and down, (H - 1, W - 1) each, between the pixels: central differences are blind to a period of 2."""
    across, down = y.diff(dim=1), y.diff(dim=0)
    return (across[:-1] + across[1:]) / 2, (down[:, :-1] + down[:, 1:]) / 2


def _structure_tensor(y: Tensor, box: int) -> tuple[Tensor, Tensor, Tensor]:
    """Its three entries, where the mean lies inside the image."""
    across, down = _gradient(y)
    products = torch.stack([across * across, across * down, down * down])
    xx, xy, yy = F.avg_pool2d(F.avg_pool2d(products, box, stride=1), box, stride=1)
    return xx, xy, yy


def bicubic_jaggedness(hr: UInt8Image, scale: int) -> float | None:
    """The :func:`jaggedness` of an image that bicubic enlargement makes of a reduced HR, to compare with.

    Where LR is aliased, as in fur and fine stripes, any SR image is jagged, and so is this one. At scale 1 it is HR's.

    Args:
        hr: RGB, (H, W, 3), uint8.
        scale: see :func:`jaggedness`.

    Raises:
        ConfigError: a scale below 1.
        DataError: an image of another shape or dtype.
    """
    check_count(scale, "jaggedness(scale)")
    luma(hr)  # refuses what is no image
    if scale == 1:
        return jaggedness(hr, hr, scale)
    if min(hr.shape[:2]) < 2 * scale:
        return None
    enlarged = as_image(bicubic(scale)(bicubic_pair("HR", hr, scale).lr))
    return jaggedness(enlarged, cropped(hr, scale), scale)


def load_jaggedness(scale: int) -> dict[str, Metric]:
    """The metrics ``jaggedness``, ``hr_jaggedness`` and ``bicubic_jaggedness``.

    Args:
        scale: how many times larger HR is.

    Returns:
        Of the SR image, of HR itself, and of its bicubic enlargement, see :func:`bicubic_jaggedness`. Each from (SR
        image, HR image), both (H, W, 3) uint8, to a value; None for images without straight edges.
    """
    return {
        "jaggedness": partial(jaggedness, scale=scale),
        "hr_jaggedness": lambda sr, hr: jaggedness(hr, hr, scale),
        "bicubic_jaggedness": lambda sr, hr: bicubic_jaggedness(hr, scale),
    }


def jaggedness_note(results: Results) -> MetricNote:
    """What has to be said of the metrics of :func:`load_jaggedness`, with those of HR and of bicubic enlargement.

    Args:
        results: data set to method to means.
    """
    return MetricNote(
        "Jaggedness is the change along the straight edges of HR, relative to that across them"
        + own_values(results, ("hr_jaggedness", "bicubic_jaggedness"), 3, "HR's own and that of bicubic enlargement"),
        f"images with fewer than {_FEWEST} pixels on straight edges",
    )


def jaggedness_excess(sr: UInt8Image, hr: UInt8Image, scale: int) -> float:
    """How much more jagged the edges of an SR image are than bicubic enlargement makes them; 0 without straight edges.

    Args:
        sr: RGB, (H, W, 3), uint8.
        hr: of the same shape.
        scale: see :func:`jaggedness`.

    Raises:
        ConfigError: a scale below 1.
        DataError: images of another shape or dtype, or of two shapes.
    """
    value, bicubic_value = jaggedness(sr, hr, scale), bicubic_jaggedness(hr, scale)
    return 0.0 if value is None or bicubic_value is None else value - bicubic_value


def jaggedness_warnings(
    results: Mapping[str, Mapping[str, Mapping[str, float | None]]], reference: str = ""
) -> list[str]:
    """A sentence for each method and data set with edges by :data:`MOST_MORE_JAGGED` more jagged than bicubic's.

    Args:
        results: data set to method to means.
        reference: a method to compare with where it is more jagged than bicubic enlargement of clean LR images is:
            noise in LR makes any SR image jagged.
    """
    found = []
    for data, methods in results.items():
        of_reference = methods.get(reference, {}).get("jaggedness")
        for method, row in methods.items():
            if above := jaggedness_above(row, of_reference, reference):
                found.append(jaggedness_warning(f"{method} on {data}", *above))
    return [warning for warning in found if warning is not None]


def jaggedness_above(
    row: Mapping[str, float | None], of_reference: float | None = None, reference: str = ""
) -> tuple[float, str] | None:
    """By how much edges are more jagged than bicubic's, or than a reference's where that is higher; and than what.

    Args:
        row: means of a method, with ``jaggedness`` and ``bicubic_jaggedness``, or there is no result.
        of_reference: the jaggedness of a method to compare with; None: bicubic enlargement alone.
        reference: that method.

    Example:
        >>> jaggedness_above({"jaggedness": 0.5, "bicubic_jaggedness": 0.25}, 0.125, "l1")
        (0.25, 'bicubic enlargement')
    """
    value, of_bicubic = row.get("jaggedness"), row.get("bicubic_jaggedness")
    if value is None or of_bicubic is None:
        return None
    if of_reference is not None and of_reference > of_bicubic:
        return value - of_reference, reference
    return value - of_bicubic, "bicubic enlargement"


def jaggedness_warning(what: str, excess: float, than: str = "bicubic enlargement") -> str | None:
    """A sentence on edges more jagged than bicubic enlargement by :data:`MOST_MORE_JAGGED`; None if they are not.

    Args:
        what: whose, for the sentence.
        excess: see :func:`jaggedness_excess`; the mean over images.
        than: what it is compared with, for the sentence.

    Example:
        >>> jaggedness_warning("PCL on Set5", 0.084)[:41]
        'PCL on Set5: jagged edges, 0.084 above bi'
        >>> jaggedness_warning("L1 on Set5", -0.009)
    """
    if excess <= MOST_MORE_JAGGED:
        return None
    return f"{what}: jagged edges, {excess:.3f} above {than}'s. Look at edges; LPIPS rewards teeth."
