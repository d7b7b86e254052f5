"""fit_sizes: networks that take images of some sizes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.evaluation.padding import any_size, fit_sizes, needed_sizes
from contrastive_sr.evaluation.tiles import super_resolve_in_tiles
from contrastive_sr.hosts.trained import trained_network


class OfMultiples(nn.Module):
    """Enlarges images whose sides are multiples of a number alone."""

    def __init__(self, multiple: int, scale: int) -> None:
        super().__init__()
        self.multiple, self.scale = multiple, scale

    def forward(self, lr: Tensor) -> Tensor:
        if any(side % self.multiple for side in lr.shape[-2:]):
            raise RuntimeError("shape is invalid")
        return F.interpolate(lr, scale_factor=self.scale)


@pytest.mark.parametrize("multiple", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (64, 64)])
def test_images_of_any_size_are_taken(multiple: int, size: tuple[int, int]) -> None:
    net = OfMultiples(multiple, 2)
    call = fit_sizes(net, 2)
    lr = torch.rand(1, 3, *size)
    if multiple == 3:  # not among those that are tried: as it is, and its own error says what is wrong
        assert call is net
    else:
        assert torch.equal(call(lr), F.interpolate(lr, scale_factor=2))
    assert (call is net) == (multiple in (1, 3))


@pytest.mark.parametrize("smallest", [2, 5])
def test_images_that_are_too_small_are_taken(smallest: int) -> None:
    side = 2 * smallest - 1
    net = nn.Sequential(nn.Conv2d(3, 12, side, padding=smallest - 1, padding_mode="reflect"), nn.PixelShuffle(2)).eval()
    sizes = needed_sizes(net, torch.empty(()), 2)
    assert sizes is not None
    assert sizes == (1, 8 if smallest == 5 else 2)
    for size in ((1, 1), (1, 30), (3, 4), (30, 17)):
        assert fit_sizes(net, 2)(torch.rand(1, 3, *size)).shape == (1, 3, 2 * size[0], 2 * size[1])


def test_tiles_of_any_size_are_taken_too() -> None:
    lr = torch.rand(1, 3, 50, 71)
    sr = super_resolve_in_tiles(fit_sizes(OfMultiples(16, 2), 2), lr, 2, tile=27, overlap=8)
    assert torch.equal(sr, F.interpolate(lr, scale_factor=2))


def test_in_a_block_of_code_whoever_calls_the_network() -> None:
    net = nn.Sequential(OfMultiples(8, 2))
    lr = torch.rand(2, 3, 5, 9)
    with any_size(net, needed_sizes(net, lr, 2), 2):
        assert torch.equal(net(lr), F.interpolate(lr, scale_factor=2))
    with pytest.raises(RuntimeError, match="shape is invalid"):
        net(lr)
    assert needed_sizes(nn.Conv2d(1, 1, 1), lr, 2) is None


def test_what_is_seen_beyond_the_edge_is_mirrored() -> None:
    seen = []

    class Seeing(OfMultiples):
        def forward(self, lr: Tensor) -> Tensor:
            seen.append(lr)
            return super().forward(lr)

    call = fit_sizes(Seeing(8, 1), 1)
    lr = torch.rand(1, 3, 6, 8)
    call(lr)
    assert torch.equal(seen[-1], F.pad(lr, (0, 0, 0, 2), mode="reflect"))


def test_a_smaller_output_is_not_taken_for_the_image() -> None:
    """Pixel shuffles may drop the rows that do not fit."""

    class Dropping(nn.Module):
        def forward(self, lr: Tensor) -> Tensor:
            height, width = (side // 4 * 4 for side in lr.shape[-2:])
            return lr[..., :height, :width]

    lr = torch.rand(1, 3, 9, 10)
    assert torch.equal(fit_sizes(Dropping(), 1)(lr), lr)


@pytest.mark.basicsr
@pytest.mark.parametrize("by_spandrel", [False, True])
def test_a_network_with_windows_super_resolves_any_image(by_spandrel: bool, tmp_path: Path) -> None:
    """SwinIR, of BasicSR's class and of spandrel's; where images fit, padding changes nothing."""
    from contrastive_sr.hosts.trained import network_of_options

    torch.manual_seed(0)
    options = (
        "{type: SwinIR, upscale: 2, img_size: 32, window_size: 8, img_range: 1., depths: [2], embed_dim: 12, "
        "num_heads: [2], mlp_ratio: 2, upsampler: pixelshuffledirect, resi_connection: 1conv}"
    )
    net = network_of_options(options, 2).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "net_g.pth")
    trained = trained_network(tmp_path / "net_g.pth", None if by_spandrel else options, 2)
    with torch.inference_mode():
        for size in ((1, 1), (5, 7), (33, 12)):
            assert trained.call(torch.rand(1, 3, *size)).shape == (1, 3, 2 * size[0], 2 * size[1])
        lr = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(trained.call(lr).clamp(0, 1), net(lr).clamp(0, 1))
