"""Tiles: the same as the whole image where the network sees no further than the overlap, and otherwise not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.evaluation import super_resolve_in_tiles

RADIUS = 6


def network(scale: int, layers: int = RADIUS) -> nn.Module:
    """Sees `layers` pixels to each side, up to padded edges as real networks have them."""
    torch.manual_seed(0)
    first, *middle = [nn.Conv2d(3 if index == 0 else 8, 8, 3, padding=1) for index in range(layers - 1)]
    body = [module for conv in (first, *middle) for module in (conv, nn.ReLU())]
    return nn.Sequential(*body, nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)).eval()


@pytest.mark.parametrize("size", [(30, 30), (32, 61), (97, 40), (33, 130), (8, 100)])
@pytest.mark.parametrize(("tile", "overlap"), [(32, RADIUS), (20, RADIUS), (48, 17)])
@torch.no_grad()
def test_equals_the_whole_image(size: tuple[int, int], tile: int, overlap: int) -> None:
    net, lr = network(3), torch.rand(2, 3, *size)
    torch.testing.assert_close(super_resolve_in_tiles(net, lr, 3, tile, overlap), net(lr), rtol=0, atol=1e-4)


@torch.no_grad()
def test_an_overlap_that_is_too_small_shows_at_the_seams_alone() -> None:
    net, lr = network(2), torch.rand(1, 3, 24, 80)
    wrong = (super_resolve_in_tiles(net, lr, 2, 32, RADIUS - 3) - net(lr)).abs().amax((0, 1, 2)) > 1e-6
    # tiles of 32 with a step of 24 meet in the middle of what they share, of 8 pixels
    places = wrong.nonzero().flatten() / 2
    assert len(places) > 0
    assert all(min(abs(place - seam) for seam in (28, 52)) <= RADIUS for place in places)


@torch.no_grad()
def test_a_network_that_shuffles_pixels_sees_the_same_grid() -> None:
    body = network(8, 4)
    net = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 3, 1), body)  # x2 in all
    lr = torch.rand(1, 3, 64, 136)
    torch.testing.assert_close(super_resolve_in_tiles(net, lr, 2, 64, 21), net(lr), rtol=0, atol=1e-4)


def test_no_tile_is_larger_than_said() -> None:
    seen = []

    def net(lr: Tensor) -> Tensor:
        seen.append(tuple(lr.shape[-2:]))
        return lr

    lr = torch.rand(1, 3, 70, 300)
    assert torch.equal(super_resolve_in_tiles(net, lr, 1, 64, 8), lr)
    assert len(seen) > 2
    assert all(max(size) <= 64 for size in seen)
    assert min(min(size) for size in seen) > 56


def test_bad_input_is_explained() -> None:
    lr = torch.rand(1, 3, 40, 40)
    with pytest.raises(
        ConfigError, match="tile: expected at least 72 pixels for an overlap of 32 on either side, got 64"
    ):
        super_resolve_in_tiles(network(2), lr, 2, 64, 32)
    with pytest.raises(ConfigError, match="overlap: expected a whole number of at least 0"):
        super_resolve_in_tiles(network(2), lr, 2, 64, -1)
    with pytest.raises(ConfigError, match=r"4 times as large, .*; got shape \(1, 3, 64, 64\). It is a network for x2"):
        super_resolve_in_tiles(network(2), lr, 4, 32, 8)
    with pytest.raises(DataError, match=r"lr: expected a non-empty tensor .*Add a batch dimension"):
        super_resolve_in_tiles(network(2), lr[0], 2)
