"""The SR network's own layers, read in its one forward pass."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.distributed import average_gradients, unwrapped, world_size, wrappers
from contrastive_sr.embeddings import training_mode
from contrastive_sr.errors import ConfigError
from contrastive_sr.networks.call import NetworkCall

DRY_RUN_SIZES = (32, 48, 64, 96)  # multiples of what window attention asks for


def feature_key(layer: str) -> str:
    """The name of a layer's output in a batch."""
    return f"features/{layer}"


def super_resolve(
    net: Callable[..., Any],
    lr: Tensor,
    layers: Sequence[str],
    inputs: Mapping[str, Any] | None = None,
    call: NetworkCall | None = None,
) -> dict[str, Tensor]:
    """One call of the SR network, with the outputs of some of its layers.

    Args:
        net: the SR network, wrapped for several processes or not.
        lr: (B, C, h, w), as the network takes it.
        layers: names of its modules, such as ``"body.15"``.
        inputs: what the network is called with besides the LR images, by keyword.
        call: says which of what the network returns is the SR image. None: all of it.

    Returns:
        ``"sr"`` as the network gave it, and ``"features/<name>"`` for each layer, all part of the network's graph.

    Raises:
        ConfigError: a layer that is not there, that did not run exactly once, or whose output has no gradient; or a
            network that returns more than an image, where ``call`` does not say which part is the image.
    """
    with tapped(net, layers) as outputs:
        sr = (call or NetworkCall()).sr_image(net(lr, **(inputs or {})))
    return {"sr": sr, **features_of(outputs, isinstance(sr, Tensor) and sr.requires_grad)}


def run_module(net: nn.Module, name: str, lr: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """One module of the SR network called on its own, with the outputs of some of the network's layers.

    Args:
        net: the SR network, without a wrapper.
        name: of the module, which takes the LR images.
        lr: (B, C, h, w), as the module takes it.
        layers: names of modules within this one.

    Returns:
        ``"features/<name>"`` for each layer, part of the module's graph.

    Raises:
        ConfigError: a layer or module that is not there, or a layer that did not run exactly once.
    """
    module = layer_modules(net, [name])[name]
    with tapped(net, layers) as outputs:
        call_alone(module, lr)
    return features_of(outputs, any(p.requires_grad for p in module.parameters()))


def call_alone(module: nn.Module, x: Tensor) -> Tensor:
    """Call a part of the SR network on its own.

    The wrapper around the network, which averages gradients over processes, does not see such a call; so the gradients
    are averaged here.

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

    If torch.compile compiled these modules, or a module around them, they run uncompiled in the block, with a warning.

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
    modules = layer_modules(net, layers)
    compiled = [name for name in layers if _is_compiled(net, name)]
    try:
        for name, module in modules.items():

            def record(module: nn.Module, inputs: object, output: object, seen: list[object] = outputs[name]) -> object:
                seen.append(output)
                # The network goes on with a copy: it may add to it (EDSR: `res += x`) or activate it in place.
                return output.clone() if isinstance(output, Tensor) else output

            handles.append(module.register_forward_hook(record))
        with _uncompiled(compiled) if compiled else nullcontext():
            yield outputs
    finally:
        for handle in handles:
            handle.remove()


def dry_run(
    net: nn.Module, layers: Sequence[str], inputs: Callable[[Tensor], Mapping[str, Any]], call: NetworkCall
) -> dict[str, Tensor]:
    """Like :func:`super_resolve`, but before anything is trained, without a graph, on a small black image.

    A network may take only images of some sizes, or of one channel: the first image that it takes is used.

    Args:
        net: the SR network, without a wrapper. Its parameters, statistics and mode are left alone.
        layers: names of its modules.
        inputs: makes from the image what the network is called with besides it, by keyword.
        call: says which of what the network returns is the SR image.

    Returns:
        ``"lr"`` (1, C, h, w), ``"sr"`` and ``"features/<name>"``.

    Raises:
        ConfigError: a layer that is not there, that does not run exactly once, or does not return a (B, C, H, W) map;
            or a network that fails on each image.
    """
    like = next(net.parameters(), torch.empty(()))
    first = next((m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)), 3)
    channels = (1, 3) if first == 1 else (3, 1)
    failures = []
    # Autocast would keep this run's weights, which have no graph, for the next one.
    without = torch.autocast(like.device.type, enabled=False)
    for count, size in product(channels, DRY_RUN_SIZES):
        lr = like.new_zeros(1, count, size, size)
        with torch.no_grad(), without, training_mode(net, False):
            try:
                return {"lr": lr, **super_resolve(net, lr, layers, inputs(lr), call)}
            except ConfigError:
                raise
            except Exception as error:  # the errors of all networks have no common base
                failures.append(error)
    largest = failures[len(DRY_RUN_SIZES) - 1]  # on the largest image of the number of channels that is more likely
    sizes = ", ".join(map(str, DRY_RUN_SIZES))
    raise ConfigError(
        f"layers: expected an SR network for images of 3 channels or of 1; {type(net).__name__} fails on each black "
        f"image of {sizes} pixels a side ({describe_error(largest)}). If it is called with more than LR images, give "
        "them: attach(net, inputs={...})."
    ) from largest


def _one_map(name: str, outputs: list[object]) -> Tensor:
    if len(outputs) != 1:
        raise ConfigError(
            f"layers: expected a layer that runs once when the network is called, but {name!r} ran {len(outputs)} "
            "times. Choose another."
        )
    (output,) = outputs
    if not isinstance(output, Tensor) or output.ndim != 4:
        kind = describe(output) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(
            f"layers: expected a layer that returns feature maps (B, C, H, W), but {name!r} returns {kind}. "
            "Choose another; a convolution's output always fits."
        )
    return output


def layer_modules(net: Callable[..., Any], layers: Sequence[str]) -> dict[str, nn.Module]:
    """Modules of a network by their names.

    Args:
        net: the network, wrapped for several processes or not.
        layers: the names.

    Raises:
        ConfigError: a module that is not there, or a network whose layers cannot be read.
    """
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


def _is_compiled(net: object, name: str) -> bool:
    """Whether torch.compile has a layer, or a module around it."""
    bare = unwrapped(net)
    parts = name.split(".")
    inner = (bare.get_submodule(".".join(parts[:end])) for end in range(1, len(parts) + 1))
    # made by torch.compile(module), and by module.compile()
    return any(
        hasattr(around, "_orig_mod") or getattr(around, "_compiled_call_impl", None) is not None
        for around in (*wrappers(net), *inner)
    )


def _uncompiled(layers: Sequence[str]) -> AbstractContextManager[None]:
    """A block in which what was compiled runs as it was written.

    What a hook records in a compiled network is a result of its graph beside the SR image: with most backends no
    gradient leads from that image to the layer, where the shares of the methods are measured. And torch does not look
    whether hooks came or went since the graph was made.

    Raises:
        ConfigError: a torch that cannot do so.
    """
    advice = (
        "Compile the parts of the network without these layers instead, each by `part.compile()`, such as all other "
        "blocks; or use methods without `layers`."
    )
    if not hasattr(torch.compiler, "set_stance"):
        raise ConfigError(
            f"layers: expected {', '.join(layers)} outside of what torch.compile compiles, or torch 2.6 or newer, "
            f"which runs it uncompiled; got torch {torch.__version__}. {advice}"
        )
    warnings.warn(
        f"layers: {', '.join(layers)} cannot be read in what torch.compile compiles, so the network runs uncompiled "
        f"where they are read. {advice}",
        stacklevel=2,
    )
    eager: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return eager
