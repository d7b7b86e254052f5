"""What differs between a training and the earlier part of it that it goes on from; imports no host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# Where an optimizer or a schedule is, not what it was told.
_PROGRESS = ("params", "last_epoch", "last_step", "base_lrs", "base_values", "param_name", "verbose")
_MISSING = "nothing"


def settings_of(state: Any) -> Any:
    """The settings in the state of an optimizer, of a schedule, or of several, by the names of their arguments.

    Example:
        >>> settings_of({"milestones": Counter([5]), "gamma": 0.5, "last_epoch": 3, "_step_count": 4})
        {'milestones': [5], 'gamma': 0.5}
        >>> settings_of({"state": {}, "param_groups": [{"lr": 0.1, "initial_lr": 0.2, "params": [0]}]})
        {'lr': 0.2}
    """
    if isinstance(state, Mapping) and "param_groups" in state:
        groups = [
            {"lr" if key == "initial_lr" else key: value for key, value in group.items() if key != "lr"}
            if "initial_lr" in group
            else group
            for group in state["param_groups"]
        ]
        return settings_of(groups[0] if len(groups) == 1 else groups)
    if isinstance(state, Counter):
        return sorted(state.elements())
    if isinstance(state, Mapping):
        named = {str(key): value for key, value in state.items()}
        return {k: settings_of(v) for k, v in named.items() if k not in _PROGRESS and not k.startswith("_")}
    if isinstance(state, (list, tuple)):
        return [settings_of(entry) for entry in state]
    return state


def differences(then: Any, now: Any, place: str = "", *, common: bool = False) -> dict[str, tuple[Any, Any]]:
    """Where two contents differ: place to the value then and the value now.

    Args:
        then: mappings, lists and values.
        now: the same.
        place: where both lie.
        common: pass over what only one of the two has.

    Example:
        >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}})
        {'a: b': (1, 3)}
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = [key for key in dict.fromkeys([*then, *now]) if not common or (key in then and key in now)]
        pairs = {str(key): (then.get(key, _MISSING), now.get(key, _MISSING)) for key in keys}
    elif _is_list(then) and _is_list(now) and any(isinstance(entry, (Mapping, list, tuple)) for entry in then):
        if len(then) != len(now) and not common:
            return {place: (then, now)}
        pairs = {str(index): pair for index, pair in enumerate(zip(then, now, strict=False))}
    else:
        return {} if then == now else {place: (then, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for key, pair in pairs.items():
        found |= differences(*pair, f"{place}: {key}" if place else key, common=common)
    return found


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def kept_warning(kept: Mapping[str, tuple[Any, Any]], config: str, how: str) -> str:
    """Says which settings of a state stay in force although a config has others now.

    Args:
        kept: what :func:`differences` gave of the state's settings and the config's.
        config: what holds the settings of this training, such as ``"the option file"``.
        how: how to begin another training from the network alone.
    """
    listed = "; ".join(f"{place} {then} is in force, not {now}" for place, (then, now) in kept.items())
    return (
        f"Resuming keeps the optimizers and schedules of the earlier training: {listed}. To train on with those of "
        f"{config}, begin another training from the network alone: {how}."
    )


def changed_warning(changed: Mapping[str, tuple[Any, Any]], step: int) -> str:
    """Says which settings are others than in the earlier part of a training, and in force.

    Args:
        changed: what :func:`differences` gave of the earlier settings and those of now.
        step: the last one of the earlier part.
    """
    listed = "; ".join(f"{place} {now}, was {then}" for place, (then, now) in changed.items())
    return f"Changed since the earlier part of this training, and in force from step {step + 1}: {listed}."
