"""Changes to what an option file or a config holds, as a person writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError

Known = Callable[[str, Mapping[str, Any]], Collection[str] | None]
"""Keys that a mapping may have beside those it has, by its dotted place and its content; None: any key."""


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as mappings in mappings.

    Raises:
        ConfigError: one key inside what another sets.

    Example:
        >>> nested({"train.optim_g.lr": 0.1, "train": {"ema_decay": 0}})
        {'train': {'optim_g': {'lr': 0.1}, 'ema_decay': 0}}
    """
    result: dict[str, Any] = {}
    for dotted, value in changes.items():
        *parents, key = str(dotted).split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"the key {dotted!r} lies inside {parent!r}, which is set to {place!r}.")
        value = nested(value) if isinstance(value, Mapping) else value
        if isinstance(value, dict) and isinstance(place.get(key), dict):
            place[key] |= value
        else:
            place[key] = value
    return result


def merged(base: Mapping[str, Any], changes: Mapping[str, Any], known: Known, place: str = "") -> dict[str, Any]:
    """A copy of a mapping with changes: mappings are merged, other values replaced, and None removes a key.

    A mapping of another ``type`` replaces the one that is there, whose keys are those of its own type.

    Args:
        base: what is changed.
        changes: as mappings in mappings, see :func:`nested`.
        known: which keys may be new.
        place: where ``base`` lies, for messages.

    Raises:
        ConfigError: a key that is not known there; the message names the nearest one.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "c": 3}}, lambda place, content: [])
        {'a': {'c': 3}}
    """
    result = dict(base)
    new = known(place, base)
    for key, value in changes.items():
        if new is not None and key not in base and key not in new:
            accepted = list(dict.fromkeys([*map(str, base), *new]))
            raise ConfigError(f"{place or 'the base'} {unknown('key', key, accepted)}")
        old = base.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and value.get("type") in (None, old.get("type")):
            result[key] = merged(old, value, known, f"{place}.{key}" if place else str(key))
        else:
            result[key] = value
    return result
