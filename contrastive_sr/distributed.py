"""What the ranks of a training exchange; nothing where torch.distributed is not running."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrastive_sr.errors import ConfigError
from contrastive_sr.functional.reduction import Reduction, check_reduction, reduce


def is_distributed() -> bool:
    """Whether torch.distributed is running, be it for one process: DistributedDataParallel wants there what it wants of
    several.
    """
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes that train together, 1 without torch.distributed."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process among them, 0 without torch.distributed."""
    return dist.get_rank() if is_distributed() else 0


def check_same_on_ranks(settings: Mapping[str, Any]) -> None:
    """Refuse to train with settings that differ from rank to rank; all ranks must call this.

    Args:
        settings: by name; of what JSON cannot write, the type alone is compared.

    Raises:
        ConfigError: on all ranks, if they differ on any.
    """
    if world_size() == 1:
        return
    own = {
        str(key): json.dumps(value, sort_keys=True, default=lambda x: type(x).__name__)
        for key, value in settings.items()
    }
    every: list[Any] = [None] * world_size()
    dist.all_gather_object(every, own)
    differing = sorted({key for other in every for key in {*every[0], *other} if other.get(key) != every[0].get(key)})
    if differing:
        raise ConfigError(
            f"{', '.join(differing)}: expected the same settings on all ranks, got others on some. Start every process "
            "with the same file and the same arguments."
        )


def unwrapped(net: Any) -> Any:
    """The network inside of DataParallel, DistributedDataParallel and torch.compile; anything else as it is."""
    *_, bare = wrappers(net)
    return bare


def wrappers(net: Any) -> Iterator[Any]:
    """A network and what it wraps, from the outermost to the network itself."""
    yield net
    if isinstance(net, (DataParallel, DistributedDataParallel)):
        yield from wrappers(net.module)
    elif isinstance(net, nn.Module) and hasattr(net, "_orig_mod"):  # its class is in torch's compiler, slow to import
        yield from wrappers(net._orig_mod)


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def average_statistics_over_ranks(module: nn.Module) -> None:
    """Set BatchNorm's running statistics to their mean over all ranks, so that a module is the same on each."""
    if world_size() == 1:
        return
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
    for s, mean in zip(statistics, _means_over_ranks(statistics), strict=True):
        s.copy_(mean)


@torch.no_grad()
def copy_from_first_rank(module: nn.Module) -> None:
    """Give a module the parameters and buffers that it has on the first rank; all ranks must call this."""
    if world_size() > 1:
        for x in (*module.parameters(), *module.buffers()):
            dist.broadcast(x.data, 0)


def gather_rows(x: Tensor, gradient: bool = True) -> tuple[Tensor, int]:
    """Join the tensors of all ranks along the first dimension; each rank may have another number of rows, also none.

    The ranks first tell each other how many, which waits for the device once. A rank without rows must call this as the
    others do, and run the backward pass of a loss that depends on the result, such as a sum over ``joined[:0]``: each
    rank adds its part to every other's gradient, and waits for theirs. Differentiable once. A graph break under
    ``torch.compile``.

    Args:
        x: (B_r, ...) rows of this rank. Everything but B_r is the same on all ranks, the dtype too.
        gradient: whether gradients flow back to the ranks that the rows came from.

    Returns:
        The joined (sum of B_r, ...), in the order of the ranks and the same on each, and the index of this rank's first
        row in it. Without torch.distributed: x and 0.
    """
    if not gradient:
        x = x.detach()
    if world_size() == 1:
        return x, 0
    lengths, trained = _exchange(x)
    if any(trained) and not x.requires_grad and torch.is_grad_enabled():
        x = x.detach().requires_grad_()  # this rank takes part in the others' backward pass
    joined: Tensor = _GatherRows.apply(x, lengths)
    return joined, sum(lengths[: rank()])


def reduce_over_ranks(values: Tensor, count: int | None, reduction: Reduction) -> Tensor:
    """This rank's part of a reduction over the joined batch, scaled so that the mean over ranks is that reduction.

    DistributedDataParallel averages gradients over ranks. With ``values.mean()`` on each, samples of a smaller batch
    would weigh more.

    Args:
        values: this rank's values, of any shape; there may be none.
        count: how many values all ranks have together. None: this rank's batch stands alone.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The scalar world size * sum / count for ``"mean"`` (0 if no rank has a value), world size * sum for ``"sum"``,
        and for ``"none"`` this rank's values as they are. Without torch.distributed the mean, the sum, the values.

    Raises:
        ConfigError: another reduction.

    Example:
        >>> reduce_over_ranks(torch.tensor([1.0, 3.0]), count=2, reduction="mean")
        tensor(2.)
    """
    check_reduction(reduction, "reduction")
    if count is None:
        return reduce(values, reduction)
    if reduction == "none":
        return values
    total = world_size() * values.sum()
    return total / max(count, 1) if reduction == "mean" else total


def average_gradients(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters, such that the backward pass averages their gradients over the ranks.

    For a part of a network under DistributedDataParallel that is called on its own: DDP does not see that call and
    averages nothing. All ranks must run the backward pass through these parameters, and equally often, because they
    wait for each other. It takes one collective (one for each dtype of the parameters). Differentiable once.

    Args:
        module: the part that is called.

    Returns:
        The parameters that need a gradient by name, for ``torch.func.functional_call(module, parameters, args)``.
        Without torch.distributed the module's own. A parameter that the pass of a rank does not reach counts there as
        having a gradient of 0, and has a gradient on all ranks afterwards.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> torch.func.functional_call(layer, average_gradients(layer), torch.ones(3, 2)).shape
        torch.Size([3, 1])
    """
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if world_size() == 1 or not parameters:
        return dict(parameters)
    return dict(zip(parameters, _AverageGradients.apply(*parameters.values()), strict=True))


def _means_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all ranks, without gradient, in one collective for each dtype."""
    means = list(tensors)
    for dtype in dict.fromkeys(x.dtype for x in tensors):
        indices = [index for index, x in enumerate(tensors) if x.dtype == dtype]
        joined = sum_over_ranks(torch.cat([tensors[index].flatten() for index in indices])) / world_size()
        for index, mean in zip(indices, joined.split([tensors[index].numel() for index in indices]), strict=True):
            means[index] = mean.view_as(tensors[index])
    return means


def _exchange(x: Tensor) -> tuple[list[int], list[bool]]:
    """The number of rows of every rank, and whether they need a gradient."""
    trained = x.requires_grad and torch.is_grad_enabled()
    # Both in one number, which is filled in on the device: a list would be copied there, and waited for.
    own = torch.full((1,), 2 * x.shape[0] + trained, dtype=torch.long, device=x.device)
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    numbers = torch.cat(parts).tolist()
    return [number // 2 for number in numbers], [number % 2 == 1 for number in numbers]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: list[int]) -> Tensor:
        start = sum(lengths[: rank()])
        ctx.own = slice(start, start + lengths[rank()])
        padded = x.new_zeros(max(lengths), *x.shape[1:])  # collectives want equal shapes
        padded[: x.shape[0]] = x
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # Every rank's loss used this rank's rows: their gradients add up.
        return sum_over_ranks(gradient.contiguous())[ctx.own], None


class _AverageGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(parameter.view_as(parameter) for parameter in parameters)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        # autograd gives zeros for a parameter that was not reached, so that all ranks send as much
        return tuple(_means_over_ranks(gradients))
