"""Registries of classes by name, and what builds objects from the mappings that config files hold."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from contrastive_sr._checks import describe, describe_error
from contrastive_sr.errors import ConfigError, ContrastiveSRError

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(dict[str, type[T]]):
    """Classes by name, for configs: ours, those that a user registers, and behind them those of the host in use.

    A host, which is the framework that a training runs in, adds its classes when it is loaded, so that a config may
    name a network or a loss of either.

    Args:
        base: what all classes are subclasses of.
        word: what they are, in messages and in the name of the decorator, ``register_<word>``.
        own: whether there is such a decorator; the message for an unknown name then says how to use it.

    Example:
        >>> class Shape: ...
        >>> SHAPES = Registry(Shape, "shape")
        >>> @SHAPES.register
        ... class Circle(Shape):
        ...     def __init__(self, *, radius):
        ...         self.radius = radius
        >>> build(SHAPES, {"type": "Circle", "radius": 2.0}, "drawing").radius
        2.0
    """

    def __init__(self, base: type[T], word: str, *, own: bool = True) -> None:
        super().__init__()
        self.base, self.word = base, word
        self.hint = (
            f" To add your own, put @register_{word} above its class, in a file that you name in `contrastive-sr train "
            "--import FILE`."
            if own
            else ""
        )
        self._host = ""
        self._host_classes: Callable[[], Mapping[str, type[T]]] = dict

    def register(self, cls: C) -> C:
        """Let configs name a class by its name; a decorator, for ours and for your own.

        Args:
            cls: a subclass of what this registry holds.

        Returns:
            The class itself.

        Raises:
            ConfigError: no such subclass, or its name is taken by a class of another module.
        """
        fits = isinstance(cls, type) and issubclass(cls, self.base)
        if not fits:
            package = self.base.__module__.rpartition(".")[0] or self.base.__module__
            raise ConfigError(
                f"register_{self.word}: expected a subclass of {package}.{self.base.__name__}, got {cls!r}."
            )
        known = self.get(cls.__name__)
        if known is not None and known.__module__ != cls.__module__:
            raise ConfigError(
                f"register_{self.word}: the name {cls.__name__} is taken by {known.__module__}. Rename yours."
            )
        self[cls.__name__] = cls
        return cls

    def add_host(self, host: str, classes: Callable[[], Mapping[str, type[T]]]) -> None:
        """Add the classes of a host.

        Args:
            host: its name, for messages.
            classes: gives its classes by name; called anew at each look-up, as users register their own.
        """
        self._host, self._host_classes = host, classes

    def of_host(self) -> Mapping[str, type[T]]:
        """The host's classes by name; none without a host."""
        return self._host_classes()

    @property
    def host(self) -> str:
        """The host's name, empty without one."""
        return self._host


def build(registry: Registry[T], config: object, where: str) -> T:
    """Build one object from ``{"type": name, **arguments}``.

    Args:
        registry: the classes to choose from.
        config: the mapping, or an object of the registry's kind that is built already, which is returned as it is.
        where: what the mapping configures, for messages.

    Returns:
        The object.

    Raises:
        ConfigError: an unknown type, an unknown or misspelt argument, one that is missing, or a class of a host that
            fails.
    """
    if isinstance(config, registry.base):
        return config
    if not isinstance(config, Mapping) or "type" not in config:
        raise ConfigError(
            f"{where}: expected a mapping with `type`, one of {', '.join(registry)}; got {describe(config)}."
        )
    arguments = dict(config)
    name = arguments.pop("type")
    of_host = registry.of_host()
    if not isinstance(name, str) or (name not in registry and name not in of_host):
        also = f"the registered ones of {registry.host}" if of_host else ""
        raise ConfigError(f"{where}: {unknown('type', name, list(registry), also, list(of_host))}{registry.hint}")
    cls = registry[name] if name in registry else of_host[name]
    every = inspect.signature(cls).parameters
    parameters = {key: p for key, p in every.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    for key in arguments:
        # only some of a host's classes take any key
        if key not in parameters and len(parameters) == len(every):
            raise ConfigError(f"{where}: {name} {unknown('key', key, list(parameters))}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise ConfigError(f"{where}: {name} needs the key {missing[0]!r}; its keys are {', '.join(parameters)}.")
    # Ours check all but whether there is enough memory; a host's classes check little, and can fail in any way.
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


def missing(key: str, got: Iterable[Any]) -> str:
    """The end of a sentence that asks for a key: the keys that are there, and which of them may be it, misspelt.

    Args:
        key: the key.
        got: the keys that are there.

    Returns:
        The text, from "expected the key" on.
    """
    names = [str(name) for name in got]
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
    guess = f" Is {close[0]!r} misspelt?" if close else ""
    return f"expected the key {key!r}, got {', '.join(names)}.{guess}"


def unknown(kind: str, name: Any, accepted: list[str], also: str = "", more: Sequence[str] = ()) -> str:
    """The end of a sentence that refuses a name: the closest accepted one, and all of them.

    Args:
        kind: what the name is for, such as ``"key"``.
        name: the name.
        accepted: names to list.
        also: words for further names that are too many to list.
        more: those further names.

    Returns:
        The text, from "does not know" on.
    """
    known = {other.lower(): other for other in (*accepted, *more)}
    close = difflib.get_close_matches(str(name).lower(), known, n=1)
    guess = f" Did you mean {known[close[0]]!r}?" if close else ""
    listed = ", and ".join(part for part in (", ".join(accepted), also) if part)
    return f"does not know the {kind} {name!r}.{guess} Accepted: {listed or 'none'}."
