"""BasicSR's NIQE as a metric of :func:`contrastive_sr.evaluation.evaluate`."""

from __future__ import annotations

import warnings

import numpy as np

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation import MetricNote, NoReference
from contrastive_sr.hosts.basicsr.host import import_basicsr

_BLOCK = 96
NOTE = MetricNote(
    "NIQE is BasicSR's, on Y without the border",
    f"images without texture, or too small for its blocks of {_BLOCK} pixels",
)


def load_niqe(border: int) -> NoReference:
    """NIQE on Y.

    Args:
        border: pixels left out at every edge; usually the scale.

    Returns:
        From the SR image, (H, W, 3) uint8, to a value, lower is better; None for images with a side of fewer than 96
        pixels inside the border, and for those that are flat or repeat themselves all over.

    Raises:
        HostError: BasicSR is missing or broken.
    """
    calculate_niqe = import_basicsr("basicsr.metrics.niqe").calculate_niqe

    def niqe(sr: UInt8Image) -> float | None:
        if min(sr.shape[:2]) < _BLOCK + 2 * border:
            return None
        with warnings.catch_warnings():
            # about blocks without any texture, which it leaves out
            warnings.simplefilter("ignore")
            try:
                value = float(calculate_niqe(sr[..., ::-1], border))  # BGR, as BasicSR has it
            except np.linalg.LinAlgError:  # no block has any texture, so that there is nothing to fit
                return None
        return value if np.isfinite(value) else None

    return NoReference(niqe)
