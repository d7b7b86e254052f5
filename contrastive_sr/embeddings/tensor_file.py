"""Reads files of tensors without running any code that they may hold."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.errors import ConfigError


class PassedOver:
    """Stands for any object in a file that is neither a tensor nor a plain container, such as a log's history."""

    def __new__(cls, *_: object, **__: object) -> PassedOver:
        return super().__new__(cls)

    def __call__(self, *_: object, **__: object) -> PassedOver:
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
        return self.KNOWN.get((module, name), PassedOver)


def read_file(path: str | Path, key: str = "weights") -> Any:
    """What a file that torch.save or safetensors wrote holds.

    Nothing but tensors and plain containers is unpickled; a :class:`PassedOver` stands for anything else.

    Args:
        path: the file.
        key: which argument or key the path is the value of, for messages.

    Returns:
        Tensors in plain containers, most often a dict.

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
    except Exception as error:  # the errors that readers raise on a file of another kind have no common base
        unsafe = "; a pickle of anything else is refused, since it can run code" * isinstance(
            error, pickle.UnpicklingError
        )
        raise ConfigError(
            f"{key}: {path} could not be read as a file of tensors ({describe_error(error)}). "
            f"Expected a state dict saved by torch.save or safetensors{unsafe}."
        ) from error


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it is about to refuse
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path):
            raise
    # torch refuses the whole file for one object of another kind, and checkpoints of trainings hold such objects
    tensors_only = SimpleNamespace(__name__=__name__, Unpickler=_TensorsOnly)
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=tensors_only)
