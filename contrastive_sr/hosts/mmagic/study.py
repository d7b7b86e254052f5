"""A study's trainings through MMagic: configs with changes, and what a training leaves."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from contrastive_sr._checks import check_count, describe_error
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, NonFiniteError
from contrastive_sr.hosts.mmagic.runner import check_config, model_of, read_config, sr_network
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.hosts.overrides import merged, nested
from contrastive_sr.hosts.proven import check_whole, save_whole
from contrastive_sr.hosts.study import Run, check_not_set, with_paths

_OURS = "contrastive_sr.Contrastive"  # before the name of MMagic's model
_MULTI = "MultiOptimWrapperConstructor"
_ADAM: dict[str, Any] = {"type": "OptimWrapper", "optimizer": {"type": "Adam", "lr": 1e-4, "betas": (0.9, 0.999)}}
_KEYS = {
    "": ["custom_hooks"],
    "model": ["methods", "degradation", "degradation_seed", "is_use_ema", "skip_nonfinite"],
    "train_dataloader": list(inspect.signature(torch.utils.data.DataLoader).parameters),
    "optim_wrapper": ["generator", "discriminator", "methods", "constructor"],
}
_SET = {
    "work_dir": "the study names its runs",
    "randomness.seed": "use --seeds",
    "train_cfg.max_iters": "use --steps",
    "load_from": "use --start or --start-steps",
    "resume": "the study resumes by itself",
}


class MMagicStudy:
    """See `StudyHost`."""

    suffix = ".py"
    resume: Sequence[str] = ("--resume", "--cfg-options", "load_from=None")  # or MMEngine would resume from the start
    without_methods: Mapping[str, Any] = MappingProxyType({"model.methods": None})

    def __init__(self, base: Path) -> None:
        importlib.import_module("contrastive_sr.hosts.mmagic")
        self.base: dict[str, Any] = read_config(base).to_dict()
        # numbers and modules of the config's own Python
        self.base = {key: value for key, value in self.base.items() if not inspect.ismodule(value)}
        steps = self.base.get("train_cfg", {}).get("max_iters")
        self.steps = check_count(steps, f"{base}: train_cfg: max_iters")
        stated = stated_scale(type(sr_network(base)), model_of(base)[2])
        if stated is None:
            raise ConfigError(f"{base}: expected a generator with a scale among its arguments, got none.")
        self.scale: int = stated[1]

    def options(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        changes = nested(changes)
        check_not_set(changes, _SET)
        options = deepcopy(merged(self.base, changes, _known))
        model = options["model"]
        trains_methods = bool(model.get("methods") or model.get("degradation"))
        if "type" not in (changes.get("model") or {}):
            model["type"] = (_OURS if trains_methods else "") + model["type"].removeprefix(_OURS)
        if trains_methods:
            options["optim_wrapper"] = _with_methods(options["optim_wrapper"], bool(model.get("methods")))
            imports = options.setdefault("custom_imports", {"imports": [], "allow_failed_imports": False})
            imports["imports"] = list(dict.fromkeys([*imports["imports"], "contrastive_sr.hosts.mmagic"]))
        else:
            model.pop("methods", None)
            options["optim_wrapper"] = _without_methods(options["optim_wrapper"])
        return options

    def fingerprint(self, options: Mapping[str, Any]) -> dict[str, Any]:
        kept = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "custom_hooks")
        return {key: options[key] for key in kept if key in options}

    def text(self, options: Mapping[str, Any], run: Run) -> str:
        from mmengine.config import Config

        options = dict(with_paths(options))
        options.update(dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator")))  # a study measures at the end
        options.update(dict.fromkeys(("test_dataloader", "test_cfg", "test_evaluator")))
        options["train_cfg"].update(max_iters=run.steps, val_interval=run.steps + 1)
        hooks = options.setdefault("default_hooks", {})
        saving = hooks.setdefault("checkpoint", {"type": "CheckpointHook", "by_epoch": False})
        saving.update(interval=max(1, min(saving.get("interval", run.steps), run.steps // 10)), save_best=None)
        logging = hooks.setdefault("logger", {"type": "LoggerHook"})
        logging["interval"] = max(1, min(logging.get("interval", 100), run.steps // 50))
        options.setdefault("log_processor", {"type": "LogProcessor", "by_epoch": False})
        options["log_processor"]["window_size"] = logging["interval"]
        options["randomness"] = {**options.get("randomness", {}), "seed": run.seed}
        options["work_dir"] = f"work_dirs/{run.name}"
        options["load_from"] = None if run.start is None else str(run.start)
        options["resume"] = False
        return str(Config(options).pretty_text)

    def check(self, config: Path) -> None:
        check_config(config)
        from mmagic.registry import DATASETS
        from mmengine.registry import DefaultScope

        try:
            with DefaultScope.overwrite_default_scope("mmagic"):
                DATASETS.build(read_config(config).train_dataloader.dataset)
        except ContrastiveSRError:
            raise
        except Exception as error:  # MMagic's datasets check little, and can fail in any way
            raise ConfigError(f"train_dataloader: dataset: it cannot be built ({describe_error(error)}).") from error

    def run_folder(self, folder: Path, run: Run) -> Path:
        return folder / "work_dirs" / run.name

    def checkpoint(self, folder: Path, run: Run) -> Path:
        return self.run_folder(folder, run) / f"iter_{run.steps}.pth"

    def resumable(self, folder: Path, run: Run) -> bool:
        for path in self.run_folder(folder, run).glob("iter_*.pth"):
            try:
                check_whole(path)  # which one it is, the hook looks
            except (DataError, NonFiniteError):
                continue
            return True
        return False

    def thin_out(self, folder: Path, run: Run) -> None:
        latest = self.checkpoint(folder, run)
        for file in latest.parent.glob("*.pth"):
            if file != latest:
                file.unlink()

    def save_start(self, state: Mapping[str, Tensor], path: Path) -> None:
        save_whole({"state_dict": {f"generator.{name}": value for name, value in state.items()}, "meta": {}}, path)


def _with_methods(wrapper: Mapping[str, Any], trains: bool) -> dict[str, Any]:
    """Optimizers for the generator and the methods, where the base has one for all."""
    parts: dict[str, Any] = dict(wrapper) if "generator" in wrapper else {"generator": dict(wrapper)}
    parts["constructor"] = f"contrastive_sr.{_MULTI}"
    if trains:
        parts.setdefault("methods", deepcopy(_ADAM))
    return parts


def _without_methods(wrapper: Mapping[str, Any]) -> dict[str, Any]:
    parts = {key: value for key, value in wrapper.items() if key != "methods"}
    if "generator" not in parts:
        return parts
    if "discriminator" not in parts:
        return dict(parts["generator"])
    return {**parts, "constructor": _MULTI}


def _known(place: str, content: Mapping[str, Any]) -> Collection[str] | None:
    from mmagic import registry

    kind = content.get("type")
    own = _KEYS.get(place)
    if isinstance(kind, str):
        every = (registry.MODELS, registry.DATASETS, registry.OPTIMIZERS, registry.OPTIM_WRAPPERS, registry.LOOPS)
        found = next((cls for one in every if (cls := one.get(kind)) is not None), None)
        if found is not None:
            parameters = inspect.signature(found).parameters
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
                return [*parameters, *(own or ())]
    return own
