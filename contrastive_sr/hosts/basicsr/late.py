"""What BasicSR would find out late, or never: misspelt keys, schedules that end too early, missing packages."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import warnings
from argparse import ArgumentParser
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from contrastive_sr._checks import check_choice, check_count, check_number, describe
from contrastive_sr.config import missing, unknown
from contrastive_sr.errors import ConfigError

# What BasicSR's models, trainer and data sets for images read. Others may read more: a key of another name is refused
# only if it is nearly one of these.
_KEYS: Mapping[str, Collection[str]] = {
    "": (
        "name", "model_type", "plugin", "scale", "num_gpu", "manual_seed", "datasets", "network_g", "network_d",
        "path", "train", "val", "logger", "dist_params", "methods", "degradation", "find_unused_parameters",
    ),
    "train": (
        "total_iter", "warmup_iter", "ema_decay", "optim_g", "optim_d", "optim_methods", "scheduler", "pixel_opt",
        "perceptual_opt", "gan_opt", "net_d_iters", "net_d_init_iters", "skip_nonfinite", "amp",
    ),
    "datasets": (
        "name", "type", "dataroot_gt", "dataroot_lq", "meta_info_file", "io_backend", "filename_tmpl", "gt_size",
        "use_hflip", "use_rot", "num_worker_per_gpu", "batch_size_per_gpu", "dataset_enlarge_ratio", "prefetch_mode",
        "num_prefetch_queue", "pin_memory", "persistent_workers", "mean", "std", "color", "crops", "phase", "scale",
    ),
    "path": ("resume_state", "ignore_resume_networks"),
    "val": ("val_freq", "save_img", "suffix", "metrics", "pbar", "use_pbar"),
    "logger": ("print_freq", "save_checkpoint_freq", "use_tb_logger", "wandb"),
    "logger: wandb": ("project", "resume_id"),
}  # fmt: skip
# Where another model or data set may have a key that is nearly one of these by right, there is a warning.
_MODELS = (
    "SRModel", "SRGANModel", "ESRGANModel", "RealESRNetModel", "RealESRGANModel", "SwinIRModel", "HiFaceGANModel",
    "StyleGAN2Model", "EDVRModel", "VideoBaseModel", "VideoGANModel", "VideoRecurrentModel", "VideoRecurrentGANModel",
)  # fmt: skip
_DATASETS = (
    "PairedImageDataset", "CheckedPairedImageDataset", "HighResolutionImageDataset", "SingleImageDataset",
    "RealESRGANDataset", "RealESRGANPairedDataset", "FFHQDataset",
)  # fmt: skip
_OF_NETWORK = ("pretrain_network", "strict_load", "param_key")  # in `path`, with the end of the network's name
_AS_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_NEARLY = 0.85  # `totl_iter` is nearly `total_iter`; `meta_info` and `meta_info_file` are two keys
_SCHEDULERS = {
    "MultiStepLR": ("milestones", "gamma", "restarts", "restart_weights"),
    "MultiStepRestartLR": ("milestones", "gamma", "restarts", "restart_weights"),
    "CosineAnnealingRestartLR": ("periods", "restart_weights", "eta_min"),
}


def check_late(opt: Mapping[str, Any]) -> None:
    """Refuse options that BasicSR would fail at later, or pass over; their parts are mappings.

    Raises:
        ConfigError: there are some.
    """
    _refuse_misspelt(opt)
    for key, part in opt.items():
        if key == "train" or str(key).startswith("network_"):
            _refuse_texts(part, str(key))
    train, logger = opt["train"], opt["logger"]
    _check_scheduler(train["scheduler"], int(train["total_iter"]))
    for key in ("print_freq", "save_checkpoint_freq"):
        _check_step(logger, key, "logger")
    if "use_tb_logger" not in logger:
        raise ConfigError("logger: expected the key 'use_tb_logger', true or false.")
    if logger["use_tb_logger"] and find_spec("tensorboard") is None:
        raise ConfigError(
            "logger: use_tb_logger: expected the package tensorboard, got none. Try: pip install tensorboard; or set "
            "use_tb_logger: false."
        )
    _check_wandb(logger)
    if opt.get("val") is not None:
        _check_step(opt["val"], "val_freq", "val")
        if "save_img" not in opt["val"]:
            raise ConfigError("val: expected the key 'save_img', true or false.")
    _check_devices(opt)


def forced(arguments: Sequence[str]) -> list[str]:
    """The entries of ``--force_yml``, also of ``--force_yml=KEY=VALUE``."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--force_yml", nargs="+", default=[])
    entries: list[str] = parser.parse_known_args(list(arguments))[0].force_yml
    return entries


def check_forced(opt: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Refuse ``--force_yml`` entries that name no place in the option file; BasicSR runs them as code.

    Args:
        opt: what the option file holds.
        arguments: those of the command.

    Raises:
        ConfigError: an entry that is not ``key:key=value``, or a part that the file does not have.
    """
    for entry in forced(arguments):
        keys, equals, value = entry.partition("=")
        if not equals or "=" in value or not re.fullmatch(r"\s*[\w.-]+(:[\w.-]+)*\s*", keys):
            raise ConfigError(f"--force_yml: expected entries such as train:ema_decay=0.999, got {entry!r}.")
        place: Any = opt
        *parents, _ = keys.strip().split(":")
        for parent in parents:
            if not isinstance(place, Mapping) or not isinstance(place.get(parent), Mapping):
                accepted = [str(key) for key, part in place.items() if isinstance(part, Mapping)]
                raise ConfigError(f"--force_yml {entry}: the option file {unknown('part', parent, accepted)}")
            place = place[parent]


def check_writable(folder: Path) -> None:
    """Refuse to train where nothing can be written.

    Raises:
        ConfigError: ``experiments`` or ``tb_logger`` cannot be written into a folder.
    """
    for place in (folder, folder / "experiments", folder / "tb_logger"):
        if place.exists() and not os.access(
            place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            raise ConfigError(
                f"Expected a folder to write the results into, got {place}, in which you may not write. Run the "
                "command in another folder."
            )


def may_be_read(path: Path) -> bool:
    """Whether a file can be read, or a folder listed."""
    return _may(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def arguments_of(registry: Any, kind: object) -> list[str] | None:
    """The arguments of a class or function that BasicSR knows by a name; None where there is none, or it takes any."""
    named = dict(iter(registry))
    found = named.get(kind, named.get(f"{kind}_basicsr"))
    if found is None:
        return None
    parameters = inspect.signature(found).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return list(parameters)


def check_parts(opt: Mapping[str, Any], registries: Any) -> None:
    """Refuse networks', losses' and metrics' types and keys that BasicSR does not know.

    Args:
        opt: the options; their parts are mappings.
        registries: BasicSR's module of registries.

    Raises:
        ConfigError: there are some.
    """
    for key in ("network_g", "network_d"):
        if opt.get(key) is not None:
            _check_part(opt[key], key, registries.ARCH_REGISTRY)
    for key, part in opt["train"].items():
        if str(key).endswith("_opt") and part:
            _check_part(part, f"train: {key}", registries.LOSS_REGISTRY)
    metrics = (opt.get("val") or {}).get("metrics")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ConfigError(f"val: metrics: expected a mapping of names to metrics, got {describe(metrics)}.")
    for name, part in (metrics or {}).items():
        where = f"val: metrics: {name}"
        if not isinstance(part, Mapping):
            raise ConfigError(f"{where}: expected a mapping such as {{type: calculate_psnr, ...}}, got {part!r}.")
        _check_part(part, where, registries.METRIC_REGISTRY, given=("img", "img2"), others=("better",))


def _check_part(
    part: Mapping[str, Any], where: str, registry: Any, given: Collection[str] = (), others: Collection[str] = ()
) -> None:
    names = [name.removesuffix("_basicsr") for name, _ in registry]
    kind = part.get("type")
    if kind not in names:
        raise ConfigError(f"{where}: BasicSR {unknown('type', kind, sorted(names))}")
    accepted = arguments_of(registry, kind)
    for key in part if accepted is not None else ():
        if key not in ("type", *(accepted or ()), *others):
            raise ConfigError(f"{where}: {kind} {unknown('key', key, [a for a in accepted or () if a not in given])}")
    found = dict(iter(registry)).get(kind) or dict(iter(registry))[f"{kind}_basicsr"]
    for name, parameter in inspect.signature(found).parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if needed and name not in part and name not in given:
            raise ConfigError(f"{where}: {kind} needs the key {name!r}, got {', '.join(map(str, part))}.")


def _refuse_misspelt(opt: Mapping[str, Any]) -> None:
    ends = [str(key).removeprefix("network_") for key in opt if str(key).startswith("network_")]
    of_networks = [f"{key}_{end}" for key in _OF_NETWORK for end in ends]
    places = {"": opt, **{key: opt.get(key) for key in ("train", "path", "val", "logger")}}
    places["logger: wandb"] = opt["logger"].get("wandb")
    places |= {f"datasets: {name}": dataset for name, dataset in opt["datasets"].items()}
    own_model = opt["model_type"].removeprefix("Contrastive") not in _MODELS
    for place, part in places.items():
        content = part if isinstance(part, Mapping) else {}
        of_data = place.startswith("datasets")
        anothers = content.get("type") not in _DATASETS if of_data else own_model and place in ("", "train", "val")
        known = [*_KEYS["datasets" if of_data else place]]
        known += of_networks if place == "path" else []
        for key in map(str, content):
            # a second one of a kind, such as `pixel_opt2`, is a key of a model's own
            if key in known or key.rstrip("0123456789_") in known or (place == "" and key.startswith("network_")):
                continue
            if difflib.get_close_matches(key, known, n=1, cutoff=_NEARLY):
                message = f"{place or 'the option file'}: BasicSR {unknown('key', key, known)}"
                if not anothers:
                    raise ConfigError(message)
                warnings.warn(f"{message} It is left to {'the data set' if of_data else 'the model'}.", stacklevel=2)


def _refuse_texts(part: object, where: str) -> None:
    """Refuse ``1e-7``, which YAML reads as text, wherever only numbers can be meant."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            _refuse_texts(value, f"{where}: {key}")
    elif isinstance(part, list):
        for value in part:
            _refuse_texts(value, where)
    elif isinstance(part, str) and _AS_NUMBER.fullmatch(part):
        check_number(part, where)


def _check_scheduler(options: object, total: int) -> None:
    where = "train: scheduler"
    if not isinstance(options, Mapping) or options.get("type") not in tuple(_SCHEDULERS):
        got = options.get("type") if isinstance(options, Mapping) else options
        raise ConfigError(f"{where}: BasicSR {unknown('type', got, list(_SCHEDULERS))}")
    accepted = _SCHEDULERS[options["type"]]
    for key in options:
        if key not in ("type", *accepted):
            raise ConfigError(f"{where}: {options['type']} {unknown('key', key, list(accepted))}")
    steps = accepted[0]
    if not _are_numbers(options.get(steps)):
        raise ConfigError(f"{where}: {steps}: expected a list of steps, got {describe(options.get(steps))}.")
    starts = "periods" if steps == "periods" else "restarts"
    if _are_numbers(options.get(starts)) or "restart_weights" in options:
        of, weights = options.get(starts, [0]), options.get("restart_weights", [1])
        if not _are_numbers(of) or not _are_numbers(weights) or len(of) != len(weights):
            raise ConfigError(
                f"{where}: expected as many restart_weights as {starts}, got {describe(weights)} and {describe(of)}."
            )
    if steps == "periods" and sum(options[steps]) < total:
        raise ConfigError(
            f"{where}: periods: expected periods of {total} steps, total_iter, or more, got "
            f"{sum(options[steps]):g}: there is no learning rate after them. Add a period, or make the last one longer."
        )


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)


def _check_step(part: Mapping[str, Any], key: str, where: str) -> None:
    if key not in part:
        raise ConfigError(f"{where}: {missing(key, part)}")
    check_number(part[key], f"{where}: {key}", at_least=1)


def _check_wandb(logger: Mapping[str, Any]) -> None:
    wandb = logger.get("wandb")
    if wandb is not None and not isinstance(wandb, Mapping):
        raise ConfigError(f"logger: wandb: expected a mapping with `project`, got {describe(wandb)}.")
    project = None if wandb is None else wandb.get("project")
    if project is None:
        return
    if not isinstance(project, str) or not project:
        raise ConfigError(f"logger: wandb: project: expected a name, or ~ for no wandb, got {describe(project)}.")
    if not logger["use_tb_logger"]:
        raise ConfigError("logger: wandb: expected use_tb_logger: true, whose log wandb sends, got false.")
    if find_spec("wandb") is None:
        raise ConfigError(
            "logger: wandb: expected the package wandb, got none. Try: pip install wandb; or set project: ~."
        )


def _check_devices(opt: Mapping[str, Any]) -> None:
    gpus, there = opt["num_gpu"], torch.cuda.device_count()
    if gpus != "auto" and check_count(gpus, "num_gpu", at_least=0) and not there:
        raise ConfigError(f"num_gpu: expected 0 or auto on a machine without a GPU, got {gpus}.")
    data = opt["datasets"]["train"]
    mode = data.get("prefetch_mode")
    check_choice(mode, (None, "cpu", "cuda"), "datasets: train: prefetch_mode")
    if mode == "cuda" and data.get("pin_memory") is not True:
        raise ConfigError("datasets: train: pin_memory: expected true with prefetch_mode: cuda, got another.")
