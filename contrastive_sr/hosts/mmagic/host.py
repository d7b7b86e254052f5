"""Makes MMagic importable next to mmcv-lite and today's torch, without changing a line of it on disk."""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from contrastive_sr._install import install
from contrastive_sr.errors import HostError
from contrastive_sr.hosts.stand_in import stand_in


class _MissingOperators(ModuleType):
    """A stand-in for `mmcv._ext`, the compiled operators that only the full mmcv has."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> None:
            raise HostError(
                f"The operator {name} of the full mmcv is needed here, but mmcv-lite is installed. MMagic's image "
                "super-resolution models do not use it; for video and StyleGAN models install mmcv from its sources."
            )

        return missing


def load_host() -> None:
    """Import `mmagic.models` and `mmagic.datasets`, with mmcv-lite as well as with the full mmcv.

    Raises:
        HostError: MMagic or something it needs is missing or broken; the message says how to repair it.
    """
    for package in ("mmengine", "mmcv", "mmagic"):
        _import(package)
    with stand_in(_MissingOperators("mmcv._ext")), warnings.catch_warnings():
        # super-resolution needs nothing that MMagic's diffusion and video editors miss
        warnings.simplefilter("ignore")
        for module in ("mmagic.models", "mmagic.datasets", "mmagic.evaluation"):
            _import(module)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise HostError(f"Training with MMagic needs {name}, but {error.name} is not installed. {_mend()}") from error
    except Exception as error:  # a host that is there can break in any way while it is imported
        raise HostError(
            f"{name} is installed but cannot be imported ({type(error).__name__}: {error}). {_mend()}"
        ) from error


def _mend() -> str:
    return f"Try: {install('mmagic')}; `contrastive-sr doctor` says what is wrong in detail."


def allow_own_checkpoints() -> None:
    """Let `torch.load` read MMEngine's own checkpoints in its safe mode, the default since torch 2.6.

    MMEngine 0.10 calls `torch.load(path)`, which then refuses its message hub: the history of the logged metrics is
    kept in `HistoryBuffer` objects that hold NumPy arrays and name their four methods. Exactly these are declared safe,
    for this process; everything else that a foreign pickle may ask for is still refused.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        return
    multiarray = importlib.import_module("numpy._core.multiarray" if _numpy_2() else "numpy.core.multiarray")
    # what logged metrics are made of; Python's own numbers need no permission
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    torch.serialization.add_safe_globals(
        [
            _history_buffer(),
            # pickle writes a method as a call of getattr, which itself would open every door
            (_history_method, "builtins.getattr"),
            multiarray._reconstruct,
            multiarray.scalar,
            np.ndarray,
            np.dtype,
            *dtypes,
        ]
    )


def _history_buffer() -> Any:
    return importlib.import_module("mmengine.logging.history_buffer").HistoryBuffer


def _history_method(owner: object, name: str) -> Any:
    """A stand-in for `getattr` while a checkpoint is read: gives the statistics of a `HistoryBuffer`, nothing else."""
    history = _history_buffer()
    if owner is not history or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(
            f"Refused to read {name!r} of {owner!r} from a checkpoint: MMEngine writes no such thing."
        )
    return getattr(history, name)


def _numpy_2() -> bool:
    return int(np.__version__.split(".")[0]) >= 2
