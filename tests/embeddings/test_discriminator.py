"""The three discriminators: layout, normalisation, transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import haar_loops, plain_blocks
from small_models import settled
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.embeddings import (
    FourierDiscriminator,
    HaarDiscriminator,
    RGBDiscriminator,
    StationaryHaarDiscriminator,
)
from contrastive_sr.errors import ConfigError, DataError

CHANNELS = [64, 64, 128, 128, 256, 256, 512, 512]
STRIDES = [1, 2, 1, 2, 1, 2, 1, 2]
ALL = [HaarDiscriminator, FourierDiscriminator, RGBDiscriminator]


def images(count: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("cls", ALL)
def test_blocks_are_the_paper_s(cls: type[RGBDiscriminator]) -> None:
    blocks = cls().blocks
    inputs = [{HaarDiscriminator: 9, FourierDiscriminator: 6, RGBDiscriminator: 3}[cls], *CHANNELS[:-1]]
    assert [block.conv.in_channels for block in blocks] == inputs
    assert [block.conv.out_channels for block in blocks] == CHANNELS
    assert [block.conv.stride for block in blocks] == [(s, s) for s in STRIDES]
    assert all(block.conv.kernel_size == (3, 3) for block in blocks)
    assert all(block.conv.bias is None for block in blocks)
    assert all(isinstance(block.norm, nn.BatchNorm2d) for block in blocks)


@pytest.mark.parametrize("cls", ALL)
def test_maps_of_chosen_blocks(cls: type[RGBDiscriminator]) -> None:
    size = 16 if cls is HaarDiscriminator else 32
    expected, side = [], size
    for channels, stride in zip(CHANNELS, STRIDES, strict=True):
        side //= stride
        expected.append((2, channels, side, side))
    assert [tuple(m.shape) for m in cls(out_indices=range(8))(images())] == expected
    assert [tuple(m.shape) for m in cls()(images())] == expected[:4]
    assert [tuple(m.shape) for m in cls(out_indices=range(1))(images())] == expected[:1]


def test_the_stationary_form_has_the_paper_s_maps_and_parameters_and_no_grid_of_its_own() -> None:
    torch.manual_seed(0)
    ours, paper = StationaryHaarDiscriminator(), HaarDiscriminator()
    assert [block.conv.stride for block in ours.blocks] == [(2, 2), *((s, s) for s in STRIDES[1:])]
    assert [x.shape for x in ours.parameters()] == [x.shape for x in paper.parameters()]
    assert [x.shape for x in ours(images())] == [x.shape for x in paper(images())]
    bands = ours.transform(images())
    assert torch.equal(bands[..., ::2, ::2], paper.transform(images()))
    assert ours(images(size=33))[0].shape == (2, 64, 17, 17)  # odd sizes too
    # stripes of two pixels that lie on the paper's grid have no edge for it
    steps = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(3, 32, 8)[None]
    assert not paper.transform(steps).any()
    assert paper.transform(steps.roll(1, 3)).any()
    assert ours.transform(steps).any()


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("size", [32, 40])
def test_sixteen_logits_an_image(cls: type[RGBDiscriminator], size: int) -> None:
    assert cls().logits(images(size=size)).shape == (2, 16)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_modules_one_after_the_other(cls: type[RGBDiscriminator], training: bool) -> None:
    torch.manual_seed(0)
    embedding = settled(cls(out_indices=range(8)).double()).train(training)
    x = images(3, 36, torch.float64)
    for got, plain in zip(embedding(x), plain_blocks(list(embedding.blocks), embedding.transform(x)), strict=True):
        assert_close(got, plain, scale=1)
        assert plain.abs().max() > 0.1
    last = plain_blocks(list(embedding.blocks), embedding.transform(x))[-1]
    pooled = F.adaptive_avg_pool2d(last, 4)
    expected = torch.stack(
        [(pooled * embedding.head.weight.view(1, -1, 1, 1)).sum(1) + embedding.head.bias], 1
    ).flatten(1)
    assert_close(embedding.logits(x), expected, scale=1)


def test_folded_normalisation_in_float32() -> None:
    torch.manual_seed(0)
    embedding = settled(HaarDiscriminator(out_indices=range(8)))
    maps = embedding(images())
    plain = plain_blocks(list(embedding.double().blocks), embedding.transform(images(dtype=torch.float64)))
    for got, reference in zip(maps, plain, strict=True):
        assert_close(got, reference, dtype=torch.float32, scale=0.4)


def test_later_blocks_do_not_overwrite_maps() -> None:
    """Activations are in place: a feature map must hold what its own block returned."""
    torch.manual_seed(0)
    for mode in (True, False):
        few, many = HaarDiscriminator(out_indices=[0]), HaarDiscriminator(out_indices=range(8))
        many.load_state_dict(few.state_dict())
        assert torch.equal(many.train(mode)(images())[0], few.train(mode)(images())[0])


def test_only_training_moves_the_statistics() -> None:
    embedding = HaarDiscriminator(out_indices=range(8)).eval()
    before = {name: value.clone() for name, value in embedding.state_dict().items()}
    embedding.logits(images())
    embedding(images())
    assert all(torch.equal(value, before[name]) for name, value in embedding.state_dict().items())
    embedding.train().logits(images())
    for index in range(8):
        assert not torch.equal(embedding.blocks[index].norm.running_mean, before[f"blocks.{index}.norm.running_mean"])
        assert embedding.blocks[index].norm.num_batches_tracked == 1


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_those_of_plain_modules(training: bool) -> None:
    torch.manual_seed(0)
    embedding = settled(HaarDiscriminator(out_indices=[0, 1, 2]).double()).train(training)
    x = images(2, 32, torch.float64).requires_grad_()
    blocks = list(embedding.blocks[:3])
    inputs = [x, *(p for block in blocks for p in block.parameters())]
    seeds = [torch.randn_like(m) for m in embedding(x)]
    got = torch.autograd.grad(embedding(x), inputs, seeds)
    expected = torch.autograd.grad(plain_blocks(blocks, embedding.transform(x)), inputs, seeds)
    for g, e in zip(got, expected, strict=True):
        assert_close(g, e, "loose", scale=float(e.abs().max()))


def test_logits_train_every_parameter() -> None:
    embedding = HaarDiscriminator()
    embedding.logits(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embedding.parameters())


def test_haar_discriminator_sees_high_bands_only() -> None:
    x = images(1, 32)
    assert_close(HaarDiscriminator().transform(x), haar_loops(x), "exact", dtype=torch.float32, scale=1)
    torch.manual_seed(0)
    embedding = settled(HaarDiscriminator())
    assert_close(embedding(x / 2)[-1], embedding(x / 2 + 0.3)[-1], "loose", scale=0.1)


def test_rgb_discriminator_sees_the_image() -> None:
    assert torch.equal(RGBDiscriminator().transform(images()), images())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_fourier_transform_against_numpy(dtype: torch.dtype) -> None:
    x = images(2, 18, dtype)[..., :16]
    spectrum = np.fft.fftshift(np.fft.fft2(x.double().numpy(), norm="ortho"), axes=(-2, -1))
    expected = np.concatenate((spectrum.real, spectrum.imag), axis=1)
    got = FourierDiscriminator().transform(x)
    assert got.shape == (2, 6, 18, 16)
    computed = torch.promote_types(dtype, torch.float32)
    assert_close(got, torch.from_numpy(expected), "exact", dtype=computed, scale=1, times=1.5)


def test_fourier_discriminator_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        maps = FourierDiscriminator()(images())
    assert all(torch.isfinite(m).all() for m in maps)


@pytest.mark.parametrize("cls", ALL)
def test_indices_in_any_order_and_no_block_behind_the_last(cls: type[RGBDiscriminator]) -> None:
    torch.manual_seed(0)
    chosen, every = cls(out_indices=[4, 0, 2]).eval(), cls(out_indices=range(8)).eval()
    every.load_state_dict(chosen.state_dict())
    assert chosen.out_indices == (0, 2, 4)
    run: list[int] = []
    for index, block in enumerate(chosen.blocks):
        block.register_forward_hook(lambda *_, index=index: run.append(index))
    maps = every(images())
    for got, index in zip(chosen(images()), (0, 2, 4), strict=True):
        assert torch.equal(got, maps[index])
    assert run == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("out_indices", [(), [8], [-1], [2.0], ["4"], "0", [True], [1, 1], 4, None])
def test_impossible_indices_are_refused(out_indices: object) -> None:
    message = r"HaarDiscriminator\(out_indices\): expected a list of different whole numbers from 0 to 7, .*, got "
    with pytest.raises(ConfigError, match=message):
        HaarDiscriminator(out_indices=out_indices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "size", "message"),
    [
        (HaarDiscriminator, (33, 32), "HaarDiscriminator: .*multiples of 2, got 33 x 32"),
        (HaarDiscriminator, (32, 30), "HaarDiscriminator: .*at least 32 x 32 pixels, got 32 x 30"),
        (RGBDiscriminator, (15, 32), "RGBDiscriminator: .*at least 16 x 16 pixels, got 15 x 32"),
        (FourierDiscriminator, (15, 32), "FourierDiscriminator: .*at least 16 x 16 pixels, got 15 x 32"),
    ],
)
def test_sizes_it_cannot_take_are_refused(cls: type[RGBDiscriminator], size: tuple[int, int], message: str) -> None:
    for call in (cls(), cls().logits):
        with pytest.raises(DataError, match=message):
            call(torch.rand(1, 3, *size))


def test_grey_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"HaarDiscriminator\(images\): expected .*\(B, 3, H, W\)"):
        HaarDiscriminator()(torch.rand(1, 1, 32, 32))
