"""Checkpoints are looked at before they take their names, and before a training goes on from them; imports no host."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contrastive_sr._checks import describe_error
from contrastive_sr.data.files import atomic_write
from contrastive_sr.embeddings.tensor_file import read_file
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError, SaveError
from contrastive_sr.methods.later import Later

DIVERGED = "The training has diverged. Lower the learning rate, and resume from the last checkpoint."


def check_finite(content: object, what: str) -> None:
    """Refuse NaN and infinity in what a checkpoint holds: weights, buffers, averages, states of optimizers.

    Args:
        content: tensors in dicts and lists; anything else in them is passed over.
        what: what it is, for the message.

    Raises:
        NonFiniteError: with the name of the first that has one.
    """
    for name, value in _tensors(content, ""):
        if (value.is_floating_point() or value.is_complex()) and not value.isfinite().all():
            raise NonFiniteError(f"{what}: expected finite numbers in {name}, got NaN or infinity. {DIVERGED}")


class LoggedLosses:
    """Looks whether what a training logs is finite. On a GPU that is known some steps later, so as not to stall it."""

    def __init__(self) -> None:
        self._coming: tuple[int, Mapping[str, float | Tensor], Later] | None = None

    def check(self, losses: Mapping[str, float | Tensor], step: int) -> None:
        """Refuse NaN and infinity.

        Args:
            losses: by name, numbers or scalar tensors.
            step: that logged them.

        Raises:
            NonFiniteError: with the name of the first that is one.
        """
        if self._coming is None and losses:
            total = sum(torch.as_tensor(value).detach().float() for value in losses.values())
            self._coming = step, losses, Later(torch.as_tensor(total))
        if self._coming is None or not self._coming[2].is_there:
            return
        (step, losses, coming), self._coming = self._coming, None
        if math.isfinite(coming.read()):
            return
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"{name} at step {step}: expected a finite number, got {float(value)}. {DIVERGED}")


def check_whole(path: Path) -> None:
    """Read a checkpoint, as a training does that goes on from it.

    Raises:
        DataError: it is missing, or damaged.
        NonFiniteError: it holds NaN or infinity.
    """
    try:
        content = read_file(path, "checkpoint")
    except ConfigError as error:
        raise DataError(str(error)) from error
    check_finite(content, str(path))


def check_saved(path: Path) -> None:
    """Look at a file that was just written and does not have its name yet.

    Raises:
        SaveError: it cannot be read.
        NonFiniteError: it holds NaN or infinity.
    """
    try:
        content = read_file(path, "checkpoint")
    except ConfigError as error:
        raise not_saved(path.parent.parent / path.name, error) from error
    check_finite(content, f"To save {path.name}")


def save_whole(content: Mapping[str, Any], path: Path) -> None:
    """Write a file with ``torch.save``, and look at it before it takes its name.

    Raises:
        SaveError: the disk does not take it.
        NonFiniteError: it holds NaN or infinity.
    """
    check_finite(content, f"To save {path.name}")
    try:
        with atomic_write(path) as unfinished:
            torch.save(dict(content), unfinished)
            read_file(unfinished, "checkpoint")
    except (OSError, RuntimeError, ConfigError) as error:  # torch's own writer says a full disk by a RuntimeError
        raise not_saved(path, error) from error


def not_saved(path: Path, error: Exception | None = None) -> SaveError:
    """The error about a file that could not be written whole."""
    reason = f" ({describe_error(error)})" if error is not None else ""
    free = shutil.disk_usage(path.parent).free / 2**20
    return SaveError(
        f"{path} could not be written{reason}; {free:,.0f} MiB are free on its disk. What was there before is as it "
        "was. Make room, and resume from the last checkpoint."
    )


def _tensors(content: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, (Mapping, list, tuple)):
        entries = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in entries:
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
