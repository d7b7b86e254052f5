"""What a resumed training with BasicSR keeps of its earlier part, and what the option file has changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrastive_sr._json import parse_json
from contrastive_sr.data.files import atomic_write
from contrastive_sr.hosts.basicsr.options import plain
from contrastive_sr.hosts.resumed import changed_warning, differences, kept_warning, settings_of

RECORD = "options.json"  # in experiments/NAME: the options in force, with those of --force_yml
_COMPARED = (
    "model_type", "scale", "num_gpu", "world_size", "manual_seed", "degradation", "methods", "datasets", "network_g",
    "network_d", "train", "val",
)  # fmt: skip
_OF_STATE = ("train: optim_g", "train: optim_d", "train: scheduler")  # what the training state itself tells


def in_force(opt: Mapping[str, Any]) -> dict[str, Any]:
    """What of the options a resumed training is compared by, as JSON holds it."""
    chosen = {key: plain(opt[key]) for key in _COMPARED if opt.get(key) is not None}
    content: dict[str, Any] = json.loads(json.dumps(chosen, default=str))
    return content


def write_record(opt: Mapping[str, Any]) -> None:
    """Write the options into the folder of the experiment."""
    with atomic_write(Path(opt["path"]["experiments_root"]) / RECORD) as unfinished:
        Path(unfinished).write_text(json.dumps(in_force(opt), indent=1) + "\n")


def changed_options(opt: Mapping[str, Any], state: Path, step: int) -> str | None:
    """Says which options are others than in the earlier part of a training; None if none are known to be.

    Args:
        opt: the options, as BasicSR has parsed them.
        state: the training state that is resumed.
        step: the step it is of.
    """
    try:
        then = parse_json((state.parent.parent / RECORD).read_text())
    except (OSError, ValueError):
        return None  # of a training that wrote none, or a damaged one: the options are those of now either way
    changed = differences(then, in_force(opt))
    changed = {place: pair for place, pair in changed.items() if not place.startswith(_OF_STATE)}
    return changed_warning(changed, step) if changed else None


def kept_settings(model: Any, state: Mapping[str, Any], network: Path) -> str | None:
    """Says which settings of optimizers and schedulers stay those of the training state; None if all are equal.

    Args:
        model: BasicSR's, as the options have made it.
        state: the training state, which it has not loaded yet.
        network: the SR network's file of that step, for messages.
    """
    names = {id(value): name.replace("optimizer_", "optim_") for name, value in vars(model).items()}
    kept: dict[str, tuple[Any, Any]] = {}
    for held, optimizer in zip(state["optimizers"], model.optimizers, strict=False):
        place = f"train: {names.get(id(optimizer), 'optimizer')}"
        kept |= differences(settings_of(held), settings_of(optimizer.state_dict()), place, common=True)
    for held, scheduler in zip(state["schedulers"], model.schedulers, strict=False):  # the options have one for all
        kept |= differences(settings_of(held), settings_of(scheduler.state_dict()), "train: scheduler", common=True)
    if not kept:
        return None
    return kept_warning(kept, "the option file", f"another `name`, and `path: pretrain_network_g: {network}`")
