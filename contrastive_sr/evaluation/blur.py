"""How blurred an image looks: a perceptual figure that needs no weights."""

from __future__ import annotations

from contrastive_sr._install import install
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.errors import HostError
from contrastive_sr.evaluation.comparison import MetricNote
from contrastive_sr.evaluation.evaluate import Metric, NoReference
from contrastive_sr.evaluation.metrics import luma
from contrastive_sr.evaluation.report import Results, own_values

_SMALLEST = 32


def load_blur(border: int) -> dict[str, Metric]:
    """The metrics ``blur`` and ``hr_blur``: the blur effect of the SR image on Y, and that of the HR image.

    The share of the differences between neighbours that a further blur takes away (Crété-Roffet et al., "The blur
    effect: perception and estimation with a new no-reference perceptual blur metric", SPIE 2007), as scikit-image has
    it, with its window of 11 pixels. An image that was blurred before loses little, so that the value is near 1; the
    sharper the image, the nearer it is to 0. It knows no content: noise and dots count as sharpness, so read it beside
    HR's own value and the patterns.

    Args:
        border: pixels left out at every edge; usually the scale.

    Returns:
        Each from (SR image, HR image), both (H, W, 3) uint8, to a value; None for images with a side of fewer than 32
        pixels inside the border.

    Raises:
        HostError: scikit-image is not installed.

    Example:
        >>> import numpy as np
        >>> hr = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        >>> sr = np.repeat(np.repeat(hr[::4, ::4], 4, 0), 4, 1)
        >>> blur = load_blur(4)
        >>> blur["hr_blur"](sr, hr) < blur["blur"](sr, hr)
        True
    """
    try:
        from skimage.measure import blur_effect
    except ImportError as error:
        raise HostError(f"blur is scikit-image's. Try: {install('evaluate')}") from error

    def blur(image: UInt8Image) -> float | None:
        inside = luma(image)[border : image.shape[0] - border, border : image.shape[1] - border]
        if min(inside.shape) < _SMALLEST:
            return None
        return float(blur_effect(inside / 255))

    return {"blur": NoReference(blur), "hr_blur": lambda sr, hr: blur(hr)}


def blur_note(results: Results) -> MetricNote:
    """What has to be said of the metrics of :func:`load_blur`, with HR's own values, to compare with.

    Args:
        results: data set to method to means.
    """
    return MetricNote(
        "Blur is scikit-image's blur effect, on Y without the border, from 0, sharp, to 1"
        + own_values(results, ("hr_blur",), 3),
        f"images with a side of fewer than {_SMALLEST} pixels inside the border",
    )
