"""The SR network's own layers, read in its one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.distributed import average_gradients, unwrapped, world_size
from contrastive_sr.embeddings import training_mode
from contrastive_sr.errors import ConfigError, ContrastiveSRError

DRY_RUN_SIZE = 32  # a multiple of what window attention asks for


def feature_key(layer: str) -> str:
    """The name of a layer's output in a batch."""
    return f"features/{layer}"


def super_resolve(
    net: Callable[..., Tensor], lr: Tensor, layers: Sequence[str], inputs: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """One call of the SR network, with the outputs of some of its layers.

    Args:
        net: the SR network, wrapped for several processes or not.
        lr: (B, 3, h, w) RGB in [0, 1].
        layers: names of its modules, such as ``"body.15"``.
        inputs: what the network is called with beside the LR images, by keyword.

    Returns:
        ``"sr"`` as the network gave it, and ``"features/<name>"`` for each layer, all part of the network's graph.

    Raises:
        ConfigError: a layer that is not there, that did not run exactly once, or whose output has no gradient.
    """
    with tapped(net, layers) as outputs:
        sr = net(lr, **(inputs or {}))
    return {"sr": sr, **features_of(outputs, isinstance(sr, Tensor) and sr.requires_grad)}


def run_module(net: nn.Module, name: str, lr: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """One module of the SR network called on its own, with the outputs of some of the network's layers.

    Args:
        net: the SR network, without a wrapper.
        name: of the module, which takes the LR images.
        lr: (B, 3, h, w) RGB in [0, 1].
        layers: names of modules within this one.

    Returns:
        ``"features/<name>"`` for each layer, part of the module's graph.

    Raises:
        ConfigError: a layer or module that is not there, or a layer that did not run exactly once.
    """
    module = _modules(net, [name])[name]
    with tapped(net, layers) as outputs:
        call_alone(module, lr)
    return features_of(outputs, any(p.requires_grad for p in module.parameters()))


def call_alone(module: nn.Module, x: Tensor) -> Tensor:
    """Call a part of the SR network on its own.

    The wrapper around the network, which averages gradients over processes, does not see such a call; so it is done
    here.

    Args:
        module: the part.
        x: what it takes.
    """
    output: Tensor = (
        module(x) if world_size() == 1 else torch.func.functional_call(module, average_gradients(module), (x,))
    )
    return output


def features_of(outputs: Mapping[str, list[object]], trained: bool) -> dict[str, Tensor]:
    """The outputs of layers, see :func:`tapped`, as entries of a batch.

    Args:
        outputs: of one call of the network.
        trained: whether the network was called in training; then each must have a gradient.

    Raises:
        ConfigError: a layer that did not run exactly once, or whose output is no map or has no gradient.
    """
    features = {name: _one_map(name, output) for name, output in outputs.items()}
    for name, x in features.items():
        if trained and torch.is_grad_enabled() and not x.requires_grad:
            raise ConfigError(
                f"layers: {name!r} has no gradient, so a loss on it would train nothing. Is that part of the network "
                "frozen, or under activation checkpointing? Choose another layer."
            )
    return {feature_key(name): x for name, x in features.items()}


@contextmanager
def tapped(net: Callable[[Tensor], Tensor], layers: Sequence[str]) -> Iterator[dict[str, list[object]]]:
    """Record what modules of a network return in a block of code; nothing is left on the network afterwards.

    Args:
        net: the network, wrapped for several processes or not.
        layers: names of its modules.

    Returns:
        By name, the outputs in the order of the calls.

    Raises:
        ConfigError: a layer that is not there, or a network whose layers cannot be read.
    """
    outputs: dict[str, list[object]] = {name: [] for name in layers}
    handles = []
    try:
        for name, module in _modules(net, layers).items():

            def record(module: nn.Module, inputs: object, output: object, seen: list[object] = outputs[name]) -> object:
                seen.append(output)
                # The network goes on with a copy: it may add to it (EDSR: `res += x`) or activate it in place.
                return output.clone() if isinstance(output, Tensor) else output

            handles.append(module.register_forward_hook(record))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def dry_run(net: nn.Module, lr: Tensor, layers: Sequence[str], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As :func:`super_resolve`, before anything is trained, without a graph.

    Args:
        net: the SR network, without a wrapper. Its parameters, statistics and mode are left alone.
        lr: (1, 3, h, w) a small black image.
        layers: names of its modules.
        inputs: what the network is called with beside it, by keyword.

    Raises:
        ConfigError: a layer that is not there, that does not run exactly once, or does not return a (B, C, H, W) map.
    """
    # Autocast would keep this run's weights, which have no graph, for the next one.
    without = torch.autocast(lr.device.type, enabled=False)
    with torch.no_grad(), without, training_mode(net, False):
        try:
            return super_resolve(net, lr, layers, inputs)
        except RuntimeError as error:
            if isinstance(error, ContrastiveSRError):
                raise
            raise ConfigError(
                f"layers: expected an SR network for RGB images; {type(net).__name__} fails on one of "
                f"{lr.shape[-1]} x {lr.shape[-2]} ({describe_error(error)})."
            ) from error


def _one_map(name: str, outputs: list[object]) -> Tensor:
    if len(outputs) != 1:
        raise ConfigError(
            f"layers: expected a layer that runs once when the network is called, but {name!r} ran {len(outputs)} "
            "times. Choose another; in a network under torch.compile the layers cannot be read."
        )
    (output,) = outputs
    if not isinstance(output, Tensor) or output.ndim != 4:
        kind = describe(output) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(
            f"layers: expected a layer that returns feature maps (B, C, H, W), but {name!r} returns {kind}. "
            "Choose another; a convolution's output always fits."
        )
    return output


def _modules(net: Callable[[Tensor], Tensor], layers: Sequence[str]) -> dict[str, nn.Module]:
    if not layers:
        return {}
    if isinstance(net, DataParallel) and len(net.device_ids) > 1:
        raise ConfigError(
            "layers: the layers of a network under DataParallel cannot be read. Use one process a GPU (torchrun)."
        )
    bare = unwrapped(net)
    if not isinstance(bare, nn.Module):
        raise ConfigError(f"layers: expected an nn.Module as SR network, got {describe(net)}.")
    modules = dict(bare.named_modules(remove_duplicate=False))
    del modules[""]
    for name in layers:
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=3)
            guess = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            parts = ", ".join(child for child, _ in bare.named_children())
            raise ConfigError(
                f"layers: {type(bare).__name__} does not know the layer {name!r}.{guess} Its parts are {parts}; "
                "`net.named_modules()` lists all names."
            )
    return {name: modules[name] for name in layers}
