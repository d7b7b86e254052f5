"""What torch.compile leaves out of its graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
# torch 2.1 has it under another name
_is_compiling = torch.compiler.is_compiling if hasattr(torch.compiler, "is_compiling") else torch._utils.is_compiling


def outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """A function that torch.compile calls as it is: a graph break. What is compiled on its own in it stays so.

    ``torch.compiler.disable`` would import torch's compiler, which takes seconds, when the function is defined.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        called = torch.compiler.disable(function) if _is_compiling() else function
        return called(*args, **kwargs)

    return call


def keep_for_several_backward_passes() -> None:
    """Tell torch.compile that what it compiles from now on may have more than one backward pass.

    Otherwise a compiled loss gives away its buffers in the first one, and a share, whose measurement is another, is an
    error of torch's. The setting is torch's own, for the whole process; it has it from 2.6 on.
    """
    import torch._functorch.config as config

    if hasattr(config, "donated_buffer"):
        config.donated_buffer = False
