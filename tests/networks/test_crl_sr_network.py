"""The CRL-SR network at test time: an encoder of the enlarged LR image, a decoder, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.networks import CRLSR, ImageEncoder


def small(seed: int = 0, **arguments: Any) -> CRLSR:
    torch.manual_seed(seed)
    return CRLSR(**{"channels": 8, "encoder_blocks": 3, "decoder_blocks": 1, **arguments})


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sr_has_the_scale_s_size(scale: int) -> None:
    assert small(scale=scale)(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


def test_default_has_the_paper_s_15_blocks() -> None:
    net = CRLSR()
    assert len(net.encoder.blocks) == 15
    assert len(net.decoder.blocks) == 5
    assert sum(p.numel() for p in net.parameters()) == 1_838_915  # as docs/crl_sr.md says


def test_values_are_those_of_encoder_and_decoder_once_more() -> None:
    net = small().double()
    lr = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    mean = net.encoder.colour.mean
    enlarged = F.interpolate(lr, size=(24, 24), mode="bicubic", align_corners=False)
    # space to depth by hand: pixel (4 i + p, 4 j + q) of channel c becomes channel 16 c + 4 p + q at (i, j)
    deep = torch.stack([(enlarged - mean)[:, c, p::4, q::4] for c in range(3) for p in range(4) for q in range(4)], 1)
    first = x = net.encoder.first(deep)
    maps = []
    for block in net.encoder.blocks:
        x = x + block.conv2(block.conv1(x).clamp_min(0))
        maps.append(x)
    features = first + net.encoder.last(x)
    for got, want in zip(net.encoder(enlarged), [maps[0], maps[1], features], strict=True):
        torch.testing.assert_close(got, want)
    (block,) = net.decoder.blocks
    decoded = features + block.conv2(block.conv1(features).clamp_min(0))
    torch.testing.assert_close(net(lr), net.decoder.upsample(decoded) + mean)


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [
        (1, ["out"]),
        (2, ["blocks.0", "out"]),
        (3, ["blocks.0", "blocks.1", "out"]),
        (15, ["blocks.4", "blocks.9", "out"]),
    ],
)
def test_out_layers_name_what_the_encoder_returns(blocks: int, layers: list[str]) -> None:
    encoder = ImageEncoder(scale=4, channels=4, blocks=blocks)
    assert encoder.out_layers == layers
    seen = {}
    for name in layers:
        encoder.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    maps = encoder(torch.rand(1, 3, 8, 8))
    assert len(maps) == len(layers)
    for name, features in zip(layers, maps, strict=True):
        assert torch.equal(seen[name], features)
        assert features.shape == (1, 4, 2, 2)


def test_checkpoint_holds_what_testing_needs_and_no_more() -> None:
    net = small()
    net(torch.rand(1, 3, 6, 6)).mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert {name.split(".")[0] for name in net.state_dict()} == {"encoder", "decoder"}
    assert not [name for name in net.state_dict() if "colour" in name]


def test_new_parts_have_weights_of_their_own() -> None:
    net = small()
    for part, new in ((net.encoder, net.new_encoder()), (net.decoder, net.new_decoder())):
        assert isinstance(new, nn.Module)
        shapes = {name: value.shape for name, value in part.state_dict().items()}
        assert {name: value.shape for name, value in new.state_dict().items()} == shapes
        assert not torch.equal(next(iter(part.parameters())), next(iter(new.parameters())))


def test_impossible_arguments_and_images_are_refused() -> None:
    for arguments in ({"scale": 8}, {"channels": 0}, {"encoder_blocks": 0}, {"decoder_blocks": 1.5}):
        with pytest.raises(ConfigError, match=rf"CRLSR\({next(iter(arguments))}\): expected a whole number"):
            small(**arguments)
    with pytest.raises(DataError, match=r"CRLSR\(lr\): expected a non-empty tensor \(B, 3, h, w\)"):
        small()(torch.rand(1, 1, 8, 8))
    with pytest.raises(DataError, match="a height and width that are multiples of 4"):
        small().encoder(torch.rand(1, 3, 10, 8))
