"""Builds methods, embeddings and samples from the mappings that config files hold."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from contrastive_sr._checks import describe
from contrastive_sr.errors import ConfigError

T = TypeVar("T")


def build(base: type[T], registry: Mapping[str, type[T]], config: object, where: str) -> T:
    """Build one object from ``{"type": name, **arguments}``.

    Args:
        base: what the objects are.
        registry: the classes to choose from, by name.
        config: the mapping, or a ``base`` that is built already, which is returned as it is.
        where: what the mapping configures, for messages.

    Raises:
        ConfigError: an unknown type, an unknown or misspelt argument, or one that is missing.
    """
    if isinstance(config, base):
        return config
    if not isinstance(config, Mapping) or "type" not in config:
        raise ConfigError(
            f"{where}: expected a mapping with `type`, one of {', '.join(registry)}; got {describe(config)}."
        )
    arguments = dict(config)
    name = arguments.pop("type")
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(f"{where}: {unknown('type', name, list(registry))}")
    cls = registry[name]
    parameters = inspect.signature(cls).parameters
    for key in arguments:
        if key not in parameters:
            raise ConfigError(f"{where}: {name} {unknown('key', key, list(parameters))}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise ConfigError(f"{where}: {name} needs the key {missing[0]!r}; its keys are {', '.join(parameters)}.")
    return cls(**arguments)


def unknown(kind: str, name: Any, accepted: list[str]) -> str:
    """The end of a sentence that refuses a name: the closest accepted one, and all of them."""
    close = difflib.get_close_matches(str(name), accepted, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return f"does not know the {kind} {name!r}.{guess} Accepted: {', '.join(accepted) or 'none'}."
