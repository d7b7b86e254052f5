"""Methods by name, and the ``methods:`` list of a config."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch

from contrastive_sr._checks import describe
from contrastive_sr.config import Registry, build
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods.base import Method
from contrastive_sr.methods.engine import Methods

METHODS: Registry[Method] = Registry(Method, "method")

register_method = METHODS.register


def build_methods(
    configs: Sequence[Mapping[str, object]] | None, *, optional: bool = False, skip_nonfinite: int = 0
) -> Methods:
    """Build the ``methods:`` list of a config.

    Args:
        configs: one mapping for each method: ``type`` (e.g. ``"PCL"``) and its arguments.
        optional: whether there may be no methods, given as an empty list or as None.
        skip_nonfinite: see :class:`~contrastive_sr.methods.Methods`.

    Raises:
        ConfigError: not a list of mappings, or an unknown type, key or value.

    Example:
        >>> build_methods([{"type": "PCL", "loss_share": 0.05}]).names
        ['pcl']
    """
    if optional and (configs is None or configs == []):
        return Methods([], skip_nonfinite=skip_nonfinite)
    if not isinstance(configs, Sequence) or isinstance(configs, str) or not configs:
        raise ConfigError(f"methods: expected a list of mappings such as {{type: PCL, ...}}, got {describe(configs)}.")
    methods = [build(METHODS, config, f"methods[{index}]") for index, config in enumerate(configs)]
    return Methods(methods, skip_nonfinite=skip_nonfinite)


def build_quietly(configs: Sequence[Mapping[str, object]]) -> Methods:
    """As :func:`build_methods`, to check them before training: without warnings, or effects on torch's draws.

    Raises:
        ConfigError: as there.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # the training will say them
        return build_methods(configs)
