"""Where two crops of one image lie."""

from __future__ import annotations

import random

import pytest

from contrastive_sr.data import two_corners


@pytest.mark.parametrize(("height", "width"), [(12, 9), (8, 30), (9, 4), (4, 9), (11, 11)])
def test_every_place_that_shares_no_pixel_is_as_likely(height: int, width: int) -> None:
    size = 4
    draws = random.Random(0)
    rows, columns = range(height - size + 1), range(width - size + 1)
    for first in [(0, 0), (len(rows) // 2, len(columns) // 2), (len(rows) - 1, len(columns) - 1)]:
        clear = {
            (row, column)
            for row in rows
            for column in columns
            if abs(row - first[0]) >= size or abs(column - first[1]) >= size
        }
        found = set()
        for place in range(max(1, len(clear))):
            values = iter([*first, place])
            one, other = two_corners(height, width, size, lambda below, values=values: _below(next(values), below))
            assert one == first
            found.add(other)
        if clear:
            assert found == clear
        else:
            ((row, column),) = found
            assert abs(row - first[0]) == max(first[0], len(rows) - 1 - first[0])
            assert abs(column - first[1]) == max(first[1], len(columns) - 1 - first[1])
    seen = {two_corners(height, width, size, draws.randrange)[0] for _ in range(2000)}
    assert seen == {(row, column) for row in rows for column in columns}


def test_an_image_as_large_as_the_crop_has_one_place() -> None:
    assert two_corners(8, 8, 8, random.randrange) == ((0, 0), (0, 0))


def _below(value: int, limit: int) -> int:
    assert value < limit
    return value
