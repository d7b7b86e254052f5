"""Super-resolution tile by tile, for images that do not fit into memory whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from contrastive_sr._checks import check_count, check_shape
from contrastive_sr.errors import ConfigError

_GRID = 8
"""Tiles start at multiples of it, so that networks that shuffle pixels or attend in windows see the same grid."""


def super_resolve_in_tiles(
    net: Callable[[Tensor], Tensor], lr: Tensor, scale: int, tile: int = 256, overlap: int = 32
) -> Tensor:
    """Super-resolve an image in overlapping tiles.

    Of each tile's output only what lies at least ``overlap`` pixels from the tile's inner edges is kept, and edges of
    the image stay edges. So a network whose output depends on at most ``overlap`` LR pixels on each side gives what
    it gives for the whole image. One that averages over the whole image (RCAN's channel attention) does not: its
    output differs a little from tile to tile.

    Args:
        net: (B, 3, h, w) to (B, 3, scale h, scale w).
        lr: (B, 3, H, W).
        scale: how many times larger the output is.
        tile: longest side of what the network is given, in LR pixels.
        overlap: LR pixels at each inner edge of a tile whose output is dropped.

    Returns:
        (B, 3, scale H, scale W).

    Raises:
        ConfigError: tiles that keep fewer than 8 pixels, or an output of another size than ``scale`` says.
        DataError: a tensor of another shape.

    Example:
        >>> net = torch.nn.Upsample(scale_factor=2)
        >>> lr = torch.rand(1, 3, 50, 70)
        >>> torch.equal(super_resolve_in_tiles(net, lr, 2, tile=32, overlap=4), net(lr))
        True
    """
    check_shape(lr, ("B", 3, "H", "W"), "lr")
    check_count(scale, "scale")
    check_tiles(tile, overlap)
    height, width = lr.shape[-2:]
    out: Tensor | None = None
    for top, upper, lower in _windows(height, tile, overlap):
        for left, first, last in _windows(width, tile, overlap):
            part = lr[..., top : top + tile, left : left + tile]
            sr = net(part)
            check_scaled(sr, part, scale)
            if out is None:
                out = sr.new_empty(*sr.shape[:2], height * scale, width * scale)
            kept = sr[
                ..., (upper - top) * scale : (lower - top) * scale, (first - left) * scale : (last - left) * scale
            ]
            out[..., upper * scale : lower * scale, first * scale : last * scale] = kept
    assert out is not None
    return out


def check_tiles(tile: int, overlap: int) -> None:
    """Refuse tiles of which too little is left.

    Raises:
        ConfigError: fewer than 8 pixels a side are kept of a tile.
    """
    check_count(tile, "tile")
    check_count(overlap, "overlap", at_least=0)
    if tile < 2 * overlap + _GRID:
        raise ConfigError(
            f"tile: expected at least {2 * overlap + _GRID} pixels for an overlap of {overlap} on either side, got "
            f"{tile}. Use larger tiles or a smaller overlap."
        )


def check_scaled(sr: object, lr: Tensor, scale: int) -> None:
    """Refuse what is no output of an SR network for ``lr``.

    Raises:
        ConfigError: anything but a tensor of ``scale`` times the size.
    """
    expected = (*lr.shape[:2], lr.shape[2] * scale, lr.shape[3] * scale)
    shape = tuple(sr.shape) if isinstance(sr, torch.Tensor) else None
    if shape == expected:
        return
    got = f"shape {shape}" if shape else f"a {type(sr).__name__}"
    hint = ""
    if shape and len(shape) == 4 and shape[2] % lr.shape[2] == 0 and shape[2] * lr.shape[3] == shape[3] * lr.shape[2]:
        hint = f" It is a network for x{shape[2] // lr.shape[2]}."
    raise ConfigError(
        f"Expected a network that makes an RGB image {scale} times as large, {expected} of {tuple(lr.shape)}; got "
        f"{got}.{hint}"
    )


def _windows(length: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """Along one axis, for each tile where it starts, and from where to where its output is kept."""
    step = (tile - 2 * overlap) // _GRID * _GRID
    end = max(0, -(-(length - tile) // _GRID) * _GRID)
    starts = [*range(0, end, step), end]
    # half-way through what two neighbours share, so that each has its overlap beyond
    cuts = [(before + tile + after) // 2 for before, after in itertools.pairwise(starts)]
    return list(zip(starts, [0, *cuts], [*cuts, length], strict=True))
