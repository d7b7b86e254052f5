"""Names the image that a host could not read; OpenCV gives it nothing, and it goes on until something breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contrastive_sr.errors import DataError


def check_readable(data: bytes, path: str | Path) -> None:
    """Refuse an image file that cannot be decoded, as both hosts decode it.

    Args:
        data: content of the file.
        path: its name, for the message.

    Raises:
        DataError: it is empty, cut off, damaged, or no image.
    """
    import cv2

    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file
        found = None
    if found is None:
        raise DataError(
            f"{path} cannot be read as an image: {len(data)} bytes that are damaged, cut off or none. Replace it, or "
            "take it out of the folder; what has been saved so far is whole, and the training can be resumed."
        )
