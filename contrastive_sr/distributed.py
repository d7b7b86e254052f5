"""Collectives that losses need; each does nothing when torch.distributed is not running."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together, 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, 0 without torch.distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def average_statistics_over_ranks(module: nn.Module) -> None:
    """Give BatchNorm's running statistics the mean over all ranks, so that every rank embeds alike."""
    if world_size() == 1:
        return
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
    if statistics:
        mean = sum_over_ranks(torch.cat([s.flatten() for s in statistics])) / world_size()
        for s, value in zip(statistics, mean.split([s.numel() for s in statistics]), strict=True):
            s.copy_(value.view_as(s))


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate the tensors of all ranks along the first dimension; gradients flow back to each rank.

    Args:
        x: (B, ...), of one shape on all ranks.

    Returns:
        (world size * B, ...), in the order of the ranks, the same on each.
    """
    return _Gather.apply(x) if world_size() > 1 else x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every rank's loss used this rank's part: their gradients add up.
        return sum_over_ranks(gradient.contiguous()).chunk(world_size())[rank()]
