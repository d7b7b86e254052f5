"""A small network with branches, on a trunk without a host, and batches for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr.methods import CriaCL
from contrastive_sr.networks import CriteriaBranches


class EDSR(nn.Module):
    """Named and made as BasicSR's, as far as features go."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv_first, self.body, self.conv_after_body = (
            nn.Conv2d(inputs, channels, 3, padding=1) for inputs in (3, channels, channels)
        )


def branches(seed: int = 1, **arguments: Any) -> CriteriaBranches:
    """The network, of other weights for another seed, and with masks that are not those of a new one."""
    torch.manual_seed(seed)
    net = CriteriaBranches(EDSR(), **arguments)
    nn.init.normal_(net.masks.last.weight, std=0.1)
    return net


def cria(**arguments: Any) -> CriaCL:
    """The method without VGG, with the paper's weights unless shares are given."""
    torch.manual_seed(0)
    weights = {f"{role}_weight": 0.01 for role in ("align", "uniformity") if f"{role}_share" not in arguments}
    return CriaCL(**{"vgg_weights": None, **weights, **arguments})


def save_random_vgg(path: Path, model: str = "vgg19") -> Path:
    """A file with a VGG-19 or VGG-16 of random weights, named as torchvision's."""
    torch.manual_seed(0)
    state, index, inputs = {}, 0, 3
    deep = {"vgg19": 4, "vgg16": 3}[model]
    for count, outputs in ((2, 64), (2, 128), (deep, 256), (deep, 512), (deep, 512)):
        for _ in range(count):
            state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5)
            state[f"features.{index}.bias"] = torch.zeros(outputs)
            index, inputs = index + 2, outputs
        index += 1
    torch.save(state, path)
    return path


def pairs(seed: int = 0, size: int = 32, count: int = 2) -> dict[str, Tensor]:
    """Random HR images and their box-downscaled LR images."""
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(count, 3, size, size, generator=generator)
    return {"lr": nn.functional.avg_pool2d(hr, 4), "hr": hr}
