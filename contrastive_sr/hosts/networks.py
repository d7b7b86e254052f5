"""SR networks by their options: ours, for the registries of both hosts, and the scale in the options of any network."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from contrastive_sr.config import build
from contrastive_sr.networks import NETWORKS

_SCALE_KEYS = ("scale", "upscale", "upscale_factor")  # as our networks, BasicSR's and MMagic's call it


def by_options(name: str) -> Callable[..., nn.Module]:
    """What a host registers as one of our networks: it builds the same, but an unknown key is a ``ConfigError``."""

    @functools.wraps(NETWORKS[name], updated=())
    def make(**options: Any) -> nn.Module:
        return build(NETWORKS, {"type": name, **options}, "network")

    return make


def stated_scale(network: Callable[..., nn.Module], options: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The key for a network's scale, and its value in the options or by default; None if it has no such key."""
    parameters = inspect.signature(network).parameters
    for key in _SCALE_KEYS:
        if key in parameters:
            return key, options.get(key, parameters[key].default)
    return None
