"""Builds methods, embeddings and samples from the mappings that config files hold."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.errors import ConfigError, ContrastiveSRError

T = TypeVar("T")


class HostRegistry(dict[str, type[T]]):
    """Our classes by name, and behind them those of the host that a training runs in.

    A host adds what it has when it is loaded, so that a config may name a network or a loss of either.
    """

    def __init__(self, own: Mapping[str, type[T]]) -> None:
        super().__init__(own)
        self._host = ""
        self._find: Callable[[], Mapping[str, type[T]]] = dict

    def add_host(self, host: str, find: Callable[[], Mapping[str, type[T]]]) -> None:
        """Add the classes of a host.

        Args:
            host: its name, for messages.
            find: gives its classes by name; called anew at each look-up, as users register their own.
        """
        self._host, self._find = host, find

    def of_host(self) -> Mapping[str, type[T]]:
        """The host's classes by name; none without a host."""
        return self._find()

    @property
    def host(self) -> str:
        """The host's name, empty without one."""
        return self._host


def build(base: type[T], registry: Mapping[str, type[T]], config: object, where: str, own: str = "") -> T:
    """Build one object from ``{"type": name, **arguments}``.

    Args:
        base: what the objects are.
        registry: the classes to choose from, by name.
        config: the mapping, or a ``base`` that is built already, which is returned as it is.
        where: what the mapping configures, for messages.
        own: a sentence on how to add a type, for the message that there is none of a name.

    Raises:
        ConfigError: an unknown type, an unknown or misspelt argument, one that is missing, or a class of a host that
            fails.
    """
    if isinstance(config, base):
        return config
    if not isinstance(config, Mapping) or "type" not in config:
        raise ConfigError(
            f"{where}: expected a mapping with `type`, one of {', '.join(registry)}; got {describe(config)}."
        )
    arguments = dict(config)
    name = arguments.pop("type")
    more = registry.of_host() if isinstance(registry, HostRegistry) else {}
    if not isinstance(name, str) or (name not in registry and name not in more):
        also = f"the registered ones of {registry.host}" if isinstance(registry, HostRegistry) and more else ""
        raise ConfigError(f"{where}: {unknown('type', name, list(registry), also, list(more))}{own}")
    cls = registry[name] if name in registry else more[name]
    every = inspect.signature(cls).parameters
    parameters = {key: p for key, p in every.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    for key in arguments:
        # only some of a host's classes take any key
        if key not in parameters and len(parameters) == len(every):
            raise ConfigError(f"{where}: {name} {unknown('key', key, list(parameters))}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise ConfigError(f"{where}: {name} needs the key {missing[0]!r}; its keys are {', '.join(parameters)}.")
    # Ours check all but whether there is as much memory; a host's classes check little, and can fail in any way.
    expected: tuple[type[Exception], ...] = (RuntimeError, MemoryError) if name in registry else (Exception,)
    try:
        return cls(**arguments)
    except ContrastiveSRError:
        raise
    except expected as error:
        raise ConfigError(
            f"{where}: {name} cannot be built with these arguments ({describe_error(error)}); got "
            f"{describe(arguments)}."
        ) from error


def unknown(kind: str, name: Any, accepted: list[str], also: str = "", more: Sequence[str] = ()) -> str:
    """The end of a sentence that refuses a name: the closest accepted one, and all of them.

    Args:
        kind: what it is the name of.
        name: the name.
        accepted: names to list.
        also: a word for further names that are too many to list.
        more: those names.
    """
    close = difflib.get_close_matches(str(name), [*accepted, *more], n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", and ".join(part for part in (", ".join(accepted), also) if part)
    return f"does not know the {kind} {name!r}.{guess} Accepted: {listed or 'none'}."
