"""Reads trained weights from the files that BasicSR, MMagic, torchvision and timm write."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.errors import ConfigError


class _PassedOver:
    """Stands for any object that is not part of a state dict, such as the log history in MMEngine's checkpoints."""

    def __new__(cls, *_: object, **__: object) -> _PassedOver:
        return super().__new__(cls)

    def __call__(self, *_: object, **__: object) -> _PassedOver:
        return self

    def _ignore(self, *_: object) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = _ignore


class _TensorsOnly(pickle.Unpickler):
    """Rebuilds tensors and plain containers; a class or function of any other kind is never looked up."""

    KNOWN: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "Size"): torch.Size,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    }

    def find_class(self, module: str, name: str) -> Any:
        return self.KNOWN.get((module, name), _PassedOver)


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch wonders at pickles that it is about to refuse
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path):
            raise
    # torch refuses the whole file for one object of another kind; MMEngine's checkpoints hold such ones.
    tensors_only = SimpleNamespace(__name__=__name__, Unpickler=_TensorsOnly)
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=tensors_only)


def load_weights(module: nn.Module, path: str | Path, *, partial: bool = False, key: str = "weights") -> None:
    """Load a module's weights from a file.

    Understood are plain state dicts, BasicSR's ``{"params": ...}``, MMagic's checkpoints, and ``.safetensors``. The
    module may be a part of the saved network: the one prefix under which all its names stand is found. Nothing but
    tensors and plain containers is unpickled; whatever else the file holds is passed over.

    Args:
        module: takes the weights in place.
        path: the file.
        partial: whether the file may hold more layers than the module.
        key: what the path is the value of, for messages.

    Raises:
        ConfigError: the file is missing, unreadable, or does not hold this module's weights.
    """
    load_state_dict(module, read_state_dict(path, key), str(path), partial=partial, key=key)


def read_state_dict(path: str | Path, key: str = "weights") -> dict[str, Tensor]:
    """The state dict in a file; which files, see :func:`load_weights`. The averaged weights, if it has such.

    Raises:
        ConfigError: the file is missing, unreadable, or holds something else.
    """
    # Our MMagic hook keeps the methods' state, and with it an embedding, beside the state dict of the stock model.
    return _section(_read(path, key), ("params_ema", "params", "contrastive_sr", "state_dict"), path, key)


def read_sections(path: str | Path, key: str = "weights") -> list[dict[str, Tensor]]:
    """As :func:`read_state_dict`, but of an MMagic checkpoint first the network's state and then the methods'.

    Raises:
        ConfigError: the file is missing, unreadable, or holds something else.
    """
    content = _read(path, key)
    orders = (("params_ema", "params", "state_dict"), ("params_ema", "params", "contrastive_sr", "state_dict"))
    return [_section(content, order, path, key) for order in orders]


def read_network(path: str | Path, key: str = "weights") -> dict[str, Tensor]:
    """The state of the SR network in a file that BasicSR or MMagic saved; its average where there is one.

    Raises:
        ConfigError: the file is missing, unreadable, or holds something else.
    """
    state = read_sections(path, key)[0]
    for prefix in ("generator_ema.", "generator."):  # of MMagic's models
        if found := {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}:
            return found
    return state


def read_methods(path: str | Path) -> dict[str, Tensor] | None:
    """The state of the methods in a training state of BasicSR or a checkpoint of MMagic; None if it holds none.

    Raises:
        ConfigError: the file is missing or unreadable.
    """
    content = _read(path, "weights")
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("methods"), Mapping):
        return dict(content["methods"])
    state = _section(content, ("contrastive_sr", "state_dict"), path, "weights") if "state_dict" in content else {}
    prefix = "methods."  # in MMagic they are part of the model
    return {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)} or None


def _section(content: Any, order: Sequence[str], path: str | Path, key: str) -> dict[str, Tensor]:
    """The first of some entries that a file's content has, or the content itself, as a state dict."""
    for entry in order:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    if isinstance(content, _PassedOver):
        raise ConfigError(
            f"{key}: {path} holds a whole Python object, as torch.save(net) writes one, expected a state dict of "
            "tensors. It is refused, since reading it would run code. Where you trust it, load it there and save "
            "net.state_dict()."
        )
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"{key}: {path} holds a {type(content).__name__}, expected a state dict of tensors.")
    return dict(content)


def _read(path: str | Path, key: str) -> Any:
    """What a file holds.

    Raises:
        ConfigError: the file is missing or unreadable.
    """
    if not isinstance(path, (str, Path)):
        raise ConfigError(f"{key}: expected the path of a file, got {describe(path)}.")
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"{key}: expected an existing file, got {path}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _load(path)
    except Exception as error:  # what the readers raise on a file of another kind has no common base
        unsafe = "; a pickle of anything else is refused, since it can run code" * isinstance(
            error, pickle.UnpicklingError
        )
        raise ConfigError(
            f"{key}: {path} could not be read as a file of tensors ({describe_error(error)}). "
            f"Expected a state dict saved by torch.save or safetensors{unsafe}."
        ) from error


def load_state_dict(
    module: nn.Module, content: Mapping[str, Tensor], source: str, *, partial: bool = False, key: str = "weights"
) -> None:
    """Load a module's weights from a state dict that may hold it under a prefix.

    Raises:
        ConfigError: the names or shapes do not fit, or several prefixes do.
    """
    wanted = module.state_dict()
    first = next(iter(wanted))
    prefixes = {name.removesuffix(first) for name in content if name.endswith(first)}
    fitting = sorted(p for p in prefixes if all(p + name in content for name in wanted))
    name = type(module).__name__
    if len(fitting) != 1:
        missing = [name for name in wanted if name not in content]
        found = f"{len(fitting)} sets of them, under {fitting}" if fitting else f"none (e.g. {missing[0]} is missing)"
        raise ConfigError(
            f"{key}: {source} was expected to hold the weights of one {name}, got {found}. "
            "A file of one embedding alone is e.g. BasicSR's NAME_embedding_*.pth."
        )
    prefix = fitting[0]
    extra = [n for n in content if n.startswith(prefix) and n.removeprefix(prefix) not in wanted]
    if extra and prefix == "" and not partial:
        raise ConfigError(f"{key}: {source} holds more than a {name}, e.g. {extra[0]}. Is it of another network?")
    for layer, value in wanted.items():
        if content[prefix + layer].shape != value.shape:
            raise ConfigError(
                f"{key}: {source}: expected {layer} of shape {tuple(value.shape)}, "
                f"got {tuple(content[prefix + layer].shape)}. Was it saved with other settings?"
            )
    module.load_state_dict({layer: content[prefix + layer] for layer in wanted})
