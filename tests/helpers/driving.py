"""Methods made ready as a host does it, in a line."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from contrastive_sr.methods import Method, Methods, Step


def attached(net: Callable[..., Tensor], *methods: Method) -> Methods:
    """The methods in an engine that knows the SR network."""
    engine = Methods(methods)
    engine.attach(net)
    return engine


def step_of(methods: Methods, name: str | None = None) -> Step:
    """The step that the methods are at, as the one of this name sees it; None: the first one."""
    return methods._step(next(iter(methods)) if name is None else methods[name])
