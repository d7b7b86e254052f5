"""What a resumed training with MMagic keeps of its earlier part, and what the config has changed since."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrastive_sr.hosts.resumed import changed_warning, differences, kept_warning, settings_of

_COMPARED = ("model", "train_dataloader", "val_dataloader", "val_evaluator", "train_cfg", "optim_wrapper")


def say_what_is_in_force(runner: Any, checkpoint: Mapping[str, Any]) -> None:
    """Write into the log what of a config does not apply to a resumed training, and what of it has changed.

    Args:
        runner: MMEngine's, with its optimizers and schedules as the config has made them.
        checkpoint: the checkpoint that is resumed, which the optimizers have not loaded yet.
    """
    kept: dict[str, tuple[Any, Any]] = {}
    optimizers, schedules = runner.optim_wrapper.state_dict(), _states(runner.param_schedulers)
    for key, place, now in (
        ("optimizer", "optim_wrapper", optimizers),
        ("param_schedulers", "param_scheduler", schedules),
    ):
        then = checkpoint.get(key, {})
        if type(then) is type(now):  # one for all, or one for each part
            kept |= differences(settings_of(then), settings_of(now), place, common=True)
    if kept:
        file = runner._load_from or Path(runner.work_dir, "last_checkpoint").read_text().strip()
        how = f"another `work_dir`, no --resume, and `load_from = {str(file)!r}`"
        runner.logger.warning(kept_warning(kept, "the config", how))
    meta = checkpoint.get("meta", {})
    texts = (meta.get("cfg", ""), runner.cfg.pretty_text)
    then, now = ({key: value for key, value in as_data(text).items() if key in _COMPARED} for text in texts)
    changed = {
        place: pair
        for place, pair in (differences(then, now) if then else {}).items()
        if not (place.startswith("optim_wrapper") and ": optimizer" in f": {place}")
    }
    if changed:
        runner.logger.warning(changed_warning(changed, meta["iter"]))


def _states(schedules: Any) -> Any:
    if isinstance(schedules, dict):
        return {name: _states(parts) for name, parts in schedules.items()}
    return [schedule.state_dict() for schedule in schedules or []]


def as_data(text: str) -> dict[str, Any]:
    """The assignments of a config as MMEngine writes it into a checkpoint, read without running it.

    Returns:
        Name to content; what is no plain data stays text. Nothing for a text that is no config.

    Example:
        >>> as_data("train_cfg = dict(max_iters=4, stages=[dict(size=(2, 2))])")
        {'train_cfg': {'max_iters': 4, 'stages': [{'size': (2, 2)}]}}
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {
        statement.targets[0].id: _value(statement.value)
        for statement in statements
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List):
        return [_value(element) for element in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
