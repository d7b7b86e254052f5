"""Where two crops of one image lie that are to share nothing but its degradation."""

from __future__ import annotations

from collections.abc import Callable


def two_corners(
    height: int, width: int, size: int, draw: Callable[[int], int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top-left corners of two square crops of an image, which overlap only where the image has no room for two.

    The first is drawn from all places, the second from those that share no pixel with the first. If there are none it
    lies in the corner of the image that is farthest from the first.

    Args:
        height: of the image, at least ``size``.
        width: of the image, at least ``size``.
        size: sides of the crops.
        draw: gives a random number below another, such as ``random.randrange``.

    Returns:
        (top, left) of each.

    Example:
        >>> import random
        >>> (top, left), (other_top, other_left) = two_corners(100, 60, 32, random.randrange)
        >>> abs(top - other_top) >= 32 or abs(left - other_left) >= 32 or top in range(37, 64)
        True
    """
    rows, columns = height - size + 1, width - size + 1
    top, left = draw(rows), draw(columns)
    clear_rows = [row for row in range(rows) if abs(row - top) >= size]
    clear_columns = [column for column in range(columns) if abs(column - left) >= size]
    # a clear row with any column, or another row with a clear column
    above_or_below = len(clear_rows) * columns
    places = above_or_below + (rows - len(clear_rows)) * len(clear_columns)
    if places == 0:
        return (top, left), (0 if 2 * top >= rows else rows - 1, 0 if 2 * left >= columns else columns - 1)
    place = draw(places)
    if place < above_or_below:
        return (top, left), (clear_rows[place // columns], place % columns)
    row, column = divmod(place - above_or_below, len(clear_columns))
    return (top, left), (max(0, top - size + 1) + row, clear_columns[column])
