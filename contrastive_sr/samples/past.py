"""Negatives from the SR network's own past."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from contrastive_sr._checks import check_count, check_number, describe, describe_error
from contrastive_sr.distributed import average_statistics_over_ranks
from contrastive_sr.errors import ConfigError
from contrastive_sr.networks.call import NetworkCall
from contrastive_sr.samples.base import SAMPLES, Batch, SampleGenerator
from contrastive_sr.samples.fixed import fixed_output

T = TypeVar("T")


@SAMPLES.register
class PastOutput(SampleGenerator, nn.Module):
    r"""The SR image of the network's own past, a moving average of its weights; or of several pasts (MCL).

    .. math:: \theta^- \leftarrow \alpha\, \theta^- + (1 - \alpha)\, \theta
        \quad\text{after every } \kappa \text{ SR steps}

    The negative model of Model Contrastive Learning (arXiv 2309.06023): it lags behind the network, so that its images
    are a little worse and get better as the network does. A past begins as a copy of the network at the first SR step,
    also if the network was trained before. At that step both images are the same, and the past is of no use as a
    negative until the network has moved; the released code instead mixes in another network's random weights, by
    :math:`\alpha`. That code averages parameters only. Here BatchNorm's statistics are averaged too, over all ranks;
    other buffers are the network's.

    It is for methods with an embedding, which know the network. A past is used in eval mode, without gradient and in
    full precision, even under autocast; its images are not clamped, because those of the network in training are not
    either. Each past costs a copy of the network in the method's saved state and in memory, and one more call of the
    network in each step. Its weights are held in float32 where the network's are in half precision.

    Attributes:
        call: how the network, and so its pasts, are called; set by the engine.

    Args:
        decay: alpha, at least 0 and below 1; or a list of them, one for each past.
        interval: kappa, the number of SR steps from one update to the next; or a list of them, one for each past. The
            paper's released options have four pasts, with a decay of 0.1 and intervals of 100, 200, 500 and 1000: each
            is roughly the network as it was that many steps ago.

    Raises:
        ConfigError: a number out of bounds, or two lists of different lengths.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
        >>> past = PastOutput(decay=[0.9, 0.999])
        >>> past.attach(net)
        >>> past({"lr": torch.rand(2, 3, 8, 8), "hr": torch.rand(2, 3, 32, 32)}).shape
        torch.Size([2, 2, 3, 32, 32])
    """

    paper = "Model Contrastive Learning"

    def __init__(self, *, decay: float | Sequence[float] = 0.999, interval: int | Sequence[int] = 1) -> None:
        nn.Module.__init__(self)
        decays = _each(decay, "PastOutput(decay)", _check_decay)
        intervals = _each(interval, "PastOutput(interval)", check_count)
        count = max(len(decays), len(intervals))
        if {len(decays), len(intervals)} - {1, count}:
            raise ConfigError(
                f"PastOutput(interval): expected as many as decay has, {len(decays)}, or one, got {len(intervals)}."
            )
        SampleGenerator.__init__(self, count=count)
        self.decays, self.intervals = (values * count if len(values) == 1 else values for values in (decays, intervals))
        if (0.0, 1) in zip(self.decays, self.intervals, strict=True):
            raise ConfigError(
                "PastOutput: expected a decay above 0, or an interval above 1, got a past that is the network itself "
                "at each step."
            )
        self.pasts = nn.ModuleList()  # made by attach()
        self.call = NetworkCall()

    def attach(self, net: nn.Module) -> None:
        """Copy the SR network; see :meth:`SampleGenerator.attach`.

        Raises:
            ConfigError: it is not a module, cannot be copied, or this sample generator has a network already.
        """
        if len(self.pasts):
            raise ConfigError("PastOutput: expected a new one for each list of samples, got one that is in use.")
        if not isinstance(net, nn.Module):
            raise ConfigError(f"PastOutput: expected an nn.Module as SR network, to be copied, got {describe(net)}.")
        for _ in range(self.count):
            try:
                past = copy.deepcopy(net).requires_grad_(False)
            except Exception as error:  # the errors of all modules have no common base
                raise ConfigError(
                    f"PastOutput: the SR network, {type(net).__name__}, cannot be copied ({describe_error(error)}). "
                    "Choose other samples."
                ) from error
            if any(x.dtype in (torch.float16, torch.bfloat16) for x in _tensors(past)):
                past.float()  # in half precision a slow average would not move at all
            self.pasts.append(past)

    @torch.no_grad()
    def follow(self, net: nn.Module, step: int) -> None:
        """Update the pasts; see :meth:`SampleGenerator.follow`."""
        for past, decay, interval in zip(self.pasts, self.decays, self.intervals, strict=True):
            if step % interval == 0:
                # Only now the network is what it begins as: hosts load weights behind attach().
                _average(past, net, decay if step else 0.0)

    def differs(self, step: int) -> bool:
        """Whether a past may differ from the network at a step: not at the first, nor where all are copied."""
        return step > 0 and any(
            decay > 0 or step % interval > 0 for decay, interval in zip(self.decays, self.intervals, strict=True)
        )

    def __call__(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The pasts' SR images.

        Args:
            batch: ``"lr"`` (B, C, h, w) and ``"hr"`` (B, C, s h, s w), in [0, 1].
            generator: not used.

        Returns:
            (B, count, C, s h, s w), not clamped, like the SR images that they are compared with.

        Raises:
            ConfigError: :meth:`attach` was not called.
            DataError: the batch has no ``"lr"``, or the network needs more than that.
        """
        if not len(self.pasts):
            raise ConfigError(
                "PastOutput: the SR network is not known yet. It is a sample of methods with an embedding, such as PCL "
                "and MCL, which are given the network by Methods.attach(net)."
            )
        hint = " A network that methods give more than LR images, such as kernels, cannot have this sample."
        images = [fixed_output(past, batch, "PastOutput", "the past", hint, self.call) for past in self.pasts]
        return torch.stack(images, dim=1)


def _tensors(net: nn.Module) -> list[Tensor]:
    return list(chain(net.parameters(), net.buffers()))


def _average(past: nn.Module, net: nn.Module, decay: float) -> None:
    """Move a network's numbers towards those of another, and copy what is no such number, such as indices.

    torch's ``AveragedModel`` either averages indices too, and rounds them down, or no buffer at all.
    """
    device = next(iter(_tensors(net)), torch.empty(())).device
    past.to(device)  # a host may have moved the network alone
    pairs = list(zip(_tensors(past), _tensors(net), strict=True))
    for mine, theirs in pairs:
        if decay == 0 or not mine.is_floating_point():
            mine.copy_(theirs)
    numbers = [(mine, theirs.to(mine.dtype)) for mine, theirs in pairs if decay and mine.is_floating_point()]
    if numbers:
        get_ema_multi_avg_fn(decay)([mine for mine, _ in numbers], [theirs for _, theirs in numbers], None)
    average_statistics_over_ranks(past)


def _check_decay(value: object, name: str) -> float:
    decay = check_number(value, name, at_least=0)
    if decay >= 1:
        raise ConfigError(f"{name}: expected a number below 1, got {decay}: the past would never move.")
    return decay


def _each(value: object, name: str, check: Callable[[object, str], T]) -> list[T]:
    """One value, or several of a list, checked."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [check(value, name)]
    if not value:
        raise ConfigError(f"{name}: expected a number, or a list of at least one, got {describe(value)}.")
    return [check(one, f"{name}[{index}]") for index, one in enumerate(value)]
