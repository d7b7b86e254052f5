"""`contrastive-sr train CONFIG` for MMagic: the host's own training script, with a progress bar."""

from __future__ import annotations

import importlib
import inspect
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from contrastive_sr._checks import describe_error
from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError, ContrastiveSRError, HostError
from contrastive_sr.hosts.kernels import check_known
from contrastive_sr.methods.registry import build_quietly


def train(config: Path, arguments: list[str]) -> None:
    """Train with MMagic's unmodified `tools/train.py`, in this process.

    Everything is written below the current folder, as MMagic does: into `work_dir` of the config, `--work-dir`, or
    `work_dirs/<name of the config>`. `--launcher pytorch` works on CPUs too, in processes that torchrun started.

    Args:
        config: MMagic config file.
        arguments: further flags of MMagic's script, such as `--resume`, `--amp`, `--work-dir`, `--cfg-options`.

    Raises:
        ConfigError: there is no such file, or `--launcher pytorch` was given without torchrun.
        HostError: MMagic is missing or broken.
        ContrastiveSRError: whatever else is wrong with config or data.
    """
    if not config.is_file():
        raise ConfigError(
            f"Expected a config file, but there is none at {config}. `contrastive-sr configs .` writes some."
        )
    importlib.import_module("contrastive_sr.hosts.mmagic")
    importlib.import_module("contrastive_sr.hosts.mmagic.registry").use_names()
    hooks = importlib.import_module("contrastive_sr.hosts.mmagic.hooks")
    check_config(config)
    script = _training_script()
    options = ["default_hooks.contrastive_sr_progress.type=contrastive_sr.ProgressHook"]
    before = sys.argv
    try:
        if _is_launched(arguments) and not torch.cuda.is_available():
            # MMEngine's own start of a process group needs CUDA devices; it uses one that exists already
            dist.init_process_group("gloo")
            options.append("model_wrapper_cfg.device_ids=None")
        sys.argv = [str(script), str(config), *_with_options(arguments, options)]
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before
        hooks.ProgressHook.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def check_config(path: Path) -> None:
    """Refuse a file that is no config, and keys, degradations and methods that our models do not take.

    Raises:
        ConfigError: it is one of these.
    """
    config = read_config(path)
    model = config.model
    models = importlib.import_module("contrastive_sr.hosts.mmagic.models")
    for cls in (models.ContrastiveSR, models.ContrastiveSRGAN):
        if model["type"] == f"contrastive_sr.{cls.__name__}":
            accepted = list(inspect.signature(cls).parameters)
            for key in model:
                if key not in ("type", *accepted):
                    raise ConfigError(f"model: {cls.__name__} {unknown('key', key, accepted)}")
            if model.get("degradation") is not None:
                models.degradation_of_config(model["degradation"], (), 0, model.get("generator"))
            if model.get("methods"):
                build_quietly(model["methods"])
            _check_validation(model.get("generator"), config.get("val_dataloader"))


def _check_validation(generator: Any, loaders: Any) -> None:
    """Refuse a generator that reads kernels if those of the validation images are not known."""
    if not isinstance(generator, dict) or generator.get("variant") != "oracle":
        return
    for loader in loaders if isinstance(loaders, list) else [loaders] if loaders else []:
        data = loader["dataset"]
        folder = Path(data.get("data_root") or "", data.get("data_prefix", {}).get("img", ""))
        check_known(folder, generator.get("kernel_size", 21))


def read_config(path: Path) -> Any:
    """A config that has a `model`.

    Raises:
        ConfigError: a file that is no config, or has none.
    """
    from mmengine.config import Config

    try:
        config = Config.fromfile(str(path))
        model = config.get("model")
    except Exception as error:  # a config is Python code, which can fail in any way
        raise ConfigError(f"{path} cannot be read as an MMagic config ({type(error).__name__}: {error}).") from error
    if not isinstance(model, dict) or "type" not in model:
        raise ConfigError(f"{path}: expected an MMagic config with `model = dict(type=...)`, got none.")
    return config


def _is_launched(arguments: Sequence[str]) -> bool:
    """Whether this is one of several processes, for `--launcher pytorch`."""
    if "--launcher pytorch" not in " ".join(arguments).replace("=", " "):
        return False
    if "RANK" not in os.environ:
        raise ConfigError(
            "--launcher pytorch is for processes that torchrun has started. "
            "Try: torchrun --nproc_per_node 2 -m contrastive_sr.cli train CONFIG --launcher pytorch"
        )
    return True


def _training_script() -> Path:
    """Where `mim train` looks for it, too: beside the package, or in the sources it was installed from."""
    package = Path(str(importlib.import_module("mmagic").__file__)).parent
    candidates = [package / ".mim" / "tools" / "train.py", package.parent / "tools" / "train.py"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise HostError(
        f"MMagic is installed, but its training script is not at {candidates[0]}. "
        "Try: pip install --force-reinstall --no-deps mmagic==1.2.0"
    )


def _with_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Add options of the config by the host's own flag; a second `--cfg-options` would replace the first."""
    if "--cfg-options" in arguments:
        after = list(arguments).index("--cfg-options") + 1
        return [*arguments[:after], *options, *arguments[after:]]
    return [*arguments, "--cfg-options", *options]


def sr_network(path: Path) -> nn.Module:
    """The SR network of a config, with new weights.

    Raises:
        ConfigError: it cannot be built.
        HostError: MMagic is missing or broken.
    """
    importlib.import_module("contrastive_sr.hosts.mmagic")
    importlib.import_module("contrastive_sr.hosts.mmagic.registry").use_names()
    from mmagic.registry import MODELS

    generator = read_config(path).model.get("generator")
    if not isinstance(generator, dict):
        raise ConfigError(f"{path}: expected a model with a `generator`, got none.")
    try:
        network: nn.Module = MODELS.build({"_scope_": "mmagic", **generator})
    except ContrastiveSRError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # MMagic's networks check little, and can fail in any way
        raise ConfigError(f"{path}: its generator cannot be built ({describe_error(error)}).") from error
    return network


def model_of(path: Path) -> tuple[Any, Any, Mapping[str, Any]]:
    """The `methods`, the `degradation` and the generator's options of a config; None where there are none.

    Raises:
        ConfigError: no valid config.
        HostError: MMagic is missing or broken.
    """
    importlib.import_module("contrastive_sr.hosts.mmagic")
    importlib.import_module("contrastive_sr.hosts.mmagic.registry").use_names()
    model = read_config(path).model
    methods = model.get("methods")
    return methods and [dict(method) for method in methods], model.get("degradation"), model["generator"]
