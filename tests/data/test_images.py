"""Image files that cannot be decoded are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrastive_sr.data.images import check_readable
from contrastive_sr.errors import DataError


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_cut_off_image_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"some.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    check_readable(data, path)
    for part in (data[: len(data) // 2], data[:-20], b"", b"no image at all"):
        with pytest.raises(DataError, match=rf"some\.{ending} cannot be read as an image: {len(part)} bytes"):
            check_readable(part, path)
