"""What torch.compile leaves out of its graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
# torch 2.1 has it under another name
is_compiling = torch.compiler.is_compiling if hasattr(torch.compiler, "is_compiling") else torch._utils.is_compiling


def outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """A function that torch.compile calls as it is: a graph break. What is compiled on its own inside it stays so.

    ``torch.compiler.disable`` would import torch's compiler, which takes seconds, when the function is defined.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        called = torch.compiler.disable(function) if is_compiling() else function
        return called(*args, **kwargs)

    return call
