"""What `python -m benchmarks` times beside each other are the same images; no test asserts a time."""

from __future__ import annotations

import pytest
from tolerances import assert_close
from torch import Tensor

from benchmarks import degradations


@pytest.mark.parametrize("name", degradations._ROWS)
def test_both_ways_give_the_same_images(name: str) -> None:
    plain, ours = (run() for run in degradations.cases(batch=2, size=64)[name])
    assert isinstance(plain, Tensor)
    assert isinstance(ours, Tensor)
    assert plain.shape == ours.shape
    # torch's bicubic shortens its kernel at the edges, where MATLAB's mirrors the image
    inside = (..., slice(2, -2), slice(2, -2)) if name.startswith("bicubic") else ...
    assert_close(ours[inside], plain[inside], "exact", scale=1)


def test_every_case_has_a_row() -> None:
    assert set(degradations.cases(batch=1, size=32)) == set(degradations._ROWS)
