"""Reads files of tensors without running any code that they may hold."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        if path.suffix.lower() == ".safetensors":
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


_TENSORS_ONLY: Any = SimpleNamespace(__name__=__name__, Unpickler=_TensorsOnly)
_torch_load = torch.load


def load_plain(file: Any, map_location: Any = "cpu", **options: Any) -> Any:
    """What a file holds that :func:`torch.save` wrote; one with anything but plain data is refused.

    Args:
        file: its path, or an open file.
        map_location: as for ``torch.load``.
        options: further options of ``torch.load``.

    Raises:
        pickle.UnpicklingError: there is something else in it, which could run code.
        Exception: it is missing or damaged, in any way.
    """
    # before 2.6 torch could be made to run code by files of its oldest format, whatever it was asked for
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6) and not _is_zip(file):
        raise pickle.UnpicklingError("a file of an old format, which only torch 2.6 and newer reads safely")
    with warnings.catch_warnings():
        # torch warns of pickles that it is about to refuse
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return _torch_load(file, map_location, weights_only=True, **options)


def _load(file: Any, map_location: Any = "cpu", **options: Any) -> Any:
    try:
        return load_plain(file, map_location, **options)
    except pickle.UnpicklingError:
        if not _is_zip(file):
            raise
    # torch refuses the whole file for one object of another kind, and checkpoints of trainings hold such objects
    return _torch_load(file, map_location, weights_only=False, pickle_module=_TENSORS_ONLY, **options)


def _is_zip(file: Any) -> bool:
    is_zip = zipfile.is_zipfile(file)
    if hasattr(file, "seek"):
        file.seek(0)
    return is_zip


@contextmanager
def never_code() -> Iterator[None]:
    """Let each ``torch.load`` in a block of code, such as a host's, read as :func:`read_file` does.

    By itself torch unpickles objects of any kind where it is older than 2.6, or where
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set and the caller does not say what is wanted, as hosts do not.
    """

    def load(
        f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: Any = None, **options: Any
    ) -> Any:
        return _load(f, map_location, **options)

    before, torch.load = torch.load, load
    try:
        yield
    finally:
        torch.load = before
