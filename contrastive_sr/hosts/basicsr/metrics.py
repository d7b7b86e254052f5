"""BasicSR's NIQE as a metric of :func:`contrastive_sr.evaluation.evaluate`."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from contrastive_sr.data.images import UInt8Image
from contrastive_sr.evaluation import MetricNote, NoReference
from contrastive_sr.evaluation.metrics import luma
from contrastive_sr.hosts.basicsr.host import import_basicsr

_BLOCK = 96
NOTE = MetricNote(
    "NIQE is BasicSR's, on Y without the border",
    f"images with less than two blocks of {_BLOCK} pixels in which there is texture",
)


def load_niqe(border: int) -> NoReference:
    """NIQE on Y.

    Args:
        border: pixels left out at every edge; usually the scale.

    Returns:
        From the SR image, (H, W, 3) uint8, to a value, lower is better; None for images with fewer than two blocks of
        96 x 96 pixels inside the border, and for those that are flat or repeat themselves all over, or all over but one
        block: NIQE compares covariances over blocks, and one block has none.

    Raises:
        HostError: BasicSR is missing or broken.
    """
    calculate_niqe = import_basicsr("basicsr.metrics.niqe").calculate_niqe

    def niqe(sr: UInt8Image) -> float | None:
        if _blocks(luma(sr), border) < 2:
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


def _blocks(y: npt.NDArray[np.float64], border: int) -> int:
    """How many blocks there are that are not flat."""
    rows, columns = ((side - 2 * border) // _BLOCK for side in y.shape)
    if min(rows, columns) < 1:
        return 0
    inside = y[border:, border:][: rows * _BLOCK, : columns * _BLOCK]
    blocks = inside.reshape(rows, _BLOCK, columns, _BLOCK)
    return int(np.count_nonzero(np.ptp(blocks, axis=(1, 3))))
