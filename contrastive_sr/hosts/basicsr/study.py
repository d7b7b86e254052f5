"""A study's trainings through BasicSR: option files with changes, and what a training leaves."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import Tensor

from contrastive_sr._checks import check_count
from contrastive_sr.errors import DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.late import arguments_of
from contrastive_sr.hosts.basicsr.options import PREFIX, check_options, host_model, plain, read_options
from contrastive_sr.hosts.basicsr.resume import newest_whole
from contrastive_sr.hosts.basicsr.runner import registered
from contrastive_sr.hosts.overrides import merged, nested
from contrastive_sr.hosts.proven import save_whole
from contrastive_sr.hosts.study import Run, check_not_set, with_paths

_KEYS = {
    place: keys.split()
    for place, keys in {
        "": "model_type scale num_gpu datasets network_g network_d path train logger methods degradation val "
        "dist_params",
        "train": "ema_decay optim_g optim_d optim_methods scheduler warmup_iter pixel_opt perceptual_opt gan_opt "
        "net_d_iters net_d_init_iters skip_nonfinite amp",
        "datasets": "train",
        "datasets.train": "name type dataroot_gt dataroot_lq meta_info_file filename_tmpl io_backend gt_size use_hflip "
        "use_rot num_worker_per_gpu batch_size_per_gpu dataset_enlarge_ratio prefetch_mode num_prefetch_queue "
        "pin_memory persistent_workers crops mean std",
        "path": "strict_load_g param_key_g pretrain_network_d strict_load_d param_key_d",
    }.items()
}
"""What BasicSR and our models read, beside what a class of the options' own takes."""
_SET = {
    "name": "the study names its runs",
    "manual_seed": "use --seeds",
    "train.total_iter": "use --steps",
    "path.pretrain_network_g": "use --start or --start-steps",
    "path.resume_state": "the study resumes by itself",
}


class BasicSRStudy:
    """See `StudyHost`."""

    suffix = ".yml"
    resume: Sequence[str] = ("--auto_resume",)
    without_methods: Mapping[str, Any] = MappingProxyType({"methods": None})

    def __init__(self, base: Path) -> None:
        models, networks = registered()
        options = plain(read_options(base))
        check_options(options, models, networks)
        options.pop("plugin", None)  # our runner registers the models itself
        self.base: dict[str, Any] = options
        self.scale: int = options["scale"]
        self.steps = check_count(int(options["train"]["total_iter"]), f"{base}: train: total_iter")

    def options(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        changes = nested(changes)
        check_not_set(changes, _SET)
        options = deepcopy(merged(self.base, changes, _known))
        trains_methods = bool(options.get("methods") or options.get("degradation"))
        if "model_type" not in changes:
            options["model_type"] = (PREFIX if trains_methods else "") + host_model(options["model_type"])
        if not trains_methods:
            options["train"].pop("optim_methods", None)
            options.pop("methods", None)
        elif options.get("methods"):
            options["train"].setdefault("optim_methods", {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.999]})
        return options

    def fingerprint(self, options: Mapping[str, Any]) -> dict[str, Any]:
        left_out = ("name", "manual_seed", "num_gpu", "path", "val", "logger", "dist_params", "datasets")
        content = {key: value for key, value in options.items() if key not in left_out}
        content["train"] = {key: value for key, value in options["train"].items() if key != "total_iter"}
        base = self.base["path"]
        path = {
            key: value
            for key, value in options["path"].items()
            if key not in ("pretrain_network_g", "resume_state")
            and (value != base.get(key) or (key == "pretrain_network_d" and value))
        }
        if path:
            content["path"] = path
        return {**content, "datasets": options["datasets"]["train"]}

    def text(self, options: Mapping[str, Any], run: Run) -> str:
        options = dict(with_paths(options))
        logger = options["logger"]
        options.update(name=run.name, manual_seed=run.seed, datasets={"train": options["datasets"]["train"]})
        options.pop("val", None)  # a study measures at the end
        options["train"]["total_iter"] = run.steps
        options["path"].pop("resume_state", None)
        options["path"]["pretrain_network_g"] = None if run.start is None else str(run.start)
        options["logger"] = {
            "print_freq": max(1, min(int(logger.get("print_freq", 100)), run.steps // 50)),
            "save_checkpoint_freq": max(1, min(int(logger.get("save_checkpoint_freq", run.steps)), run.steps // 10)),
            "use_tb_logger": False,
        }
        return yaml.safe_dump(options, sort_keys=False)

    def check(self, config: Path) -> None:
        options = read_options(config)
        check_options(options, *registered())
        parsed: dict[str, Any] = {**options, "dist": False, "world_size": 1}
        if parsed["num_gpu"] == "auto":
            parsed["num_gpu"] = torch.cuda.device_count()
        parsed["datasets"]["train"].update(phase="train", scale=parsed["scale"])
        import_basicsr("contrastive_sr.hosts.basicsr.start").check_start(parsed)

    def run_folder(self, folder: Path, run: Run) -> Path:
        return folder / "experiments" / run.name

    def checkpoint(self, folder: Path, run: Run) -> Path:
        return self.run_folder(folder, run) / "models" / "net_g_latest.pth"

    def resumable(self, folder: Path, run: Run) -> bool:
        content = self.run_folder(folder, run)
        options = read_options(folder / "configs" / f"{run.name}{self.suffix}")
        paths = {"training_states": content / "training_states", "models": content / "models"}
        try:
            return newest_whole({**options, "path": paths})[0] is not None
        except DataError:
            return False

    def thin_out(self, folder: Path, run: Run) -> None:
        latest = self.checkpoint(folder, run)
        for file in (*latest.parent.glob("*.pth"), *self.run_folder(folder, run).glob("training_states/*.*")):
            if file != latest:
                file.unlink()

    def save_start(self, state: Mapping[str, Tensor], path: Path) -> None:
        save_whole({"params": dict(state)}, path)


def _known(place: str, content: Mapping[str, Any]) -> Collection[str] | None:
    if place in _KEYS:
        return _KEYS[place]
    registries = import_basicsr("basicsr.utils.registry")
    kind = content.get("type")
    parent, _, key = place.rpartition(".")
    if parent == "" and key.startswith("network_"):
        return arguments_of(registries.ARCH_REGISTRY, kind)
    if parent == "train" and key.startswith("optim_"):
        return [name for name in inspect.signature(torch.optim.Adam).parameters if name != "params"]
    if parent == "train" and key.endswith("_opt"):
        return arguments_of(registries.LOSS_REGISTRY, kind)
    return None
