"""From the values of a loss, one per image or position, to what is minimised."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from contrastive_sr._checks import check_choice

Reduction = Literal["mean", "sum", "none"]


def check_reduction(reduction: str, name: str) -> None:
    """Require ``"mean"``, ``"sum"`` or ``"none"``.

    Args:
        reduction: the value to check.
        name: the argument's name, for the message.

    Raises:
        ConfigError: anything else.
    """
    check_choice(reduction, get_args(Reduction), name)


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """The values' ``"mean"``, their ``"sum"``, or with ``"none"`` the values themselves.

    Raises:
        ConfigError: another reduction.

    Example:
        >>> import torch
        >>> reduce(torch.tensor([1.0, 3.0]), "mean")
        tensor(2.)
    """
    check_reduction(reduction, "reduction")
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
