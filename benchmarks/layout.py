"""A training step of an SR network with its maps in PyTorch's default layout and in channels_last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.networks import edsr, rcan, rrdb
from benchmarks.timing import DEVICE, Run, compare

NETWORKS: dict[str, Callable[[], nn.Module]] = {"EDSR-baseline": edsr, "RCAN": rcan, "RRDBNet": rrdb}


def _step(net: nn.Module, lr: torch.Tensor, hr: torch.Tensor) -> Run:
    def run() -> None:
        net.zero_grad()
        torch.nn.functional.l1_loss(net(lr), hr).backward()

    return run


def report(patch: int = 48, repeats: int = 5) -> Iterator[tuple[str, float]]:
    """Forward, L1 and backward of one LR patch at x4.

    Args:
        patch: side of the LR patch, in pixels.
        repeats: steps measured of each.

    Returns:
        Of each network its name, and the time in the default layout divided by that in channels_last.
    """
    torch.set_num_threads(1)
    lr = torch.rand(1, 3, patch, patch, device=DEVICE)
    hr = torch.rand(1, 3, 4 * patch, 4 * patch, device=DEVICE)
    for name, build in NETWORKS.items():
        runs = {
            str(layout): _step(build().to(DEVICE).to(memory_format=layout), lr, hr)
            for layout in (torch.contiguous_format, torch.channels_last)
        }
        default, last = compare(runs, repeats).values()
        yield name, default / last
