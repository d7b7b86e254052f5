"""`contrastive-sr train CONFIG` for MMagic: the host's own training script, with a progress bar."""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from contrastive_sr._checks import describe_error
from contrastive_sr.config import unknown
from contrastive_sr.embeddings.tensor_file import never_code
from contrastive_sr.errors import ConfigError, ContrastiveSRError, HostError
from contrastive_sr.hosts.endings import init_gloo, waiting_time
from contrastive_sr.hosts.kernels import check_known
from contrastive_sr.hosts.launch import one_training
from contrastive_sr.hosts.mmagic.resumed import as_data
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
    check_work_dir(config, arguments)
    script = _training_script()
    options = [
        "default_hooks.contrastive_sr_progress.type=contrastive_sr.ProgressHook",
        "default_hooks.contrastive_sr_finite.type=contrastive_sr.FiniteHook",
    ]
    if read_config(config).get("train_dataloader", {}).get("num_workers") and "train_dataloader." not in "".join(
        arguments
    ):
        options.append(f"train_dataloader.timeout={waiting_time():g}")  # a process that loads images and stalls
    before = sys.argv
    try:
        if _is_launched(arguments) and not torch.cuda.is_available():
            # MMEngine's own start of a process group needs CUDA devices; it uses one that exists already
            init_gloo()
            options.append("model_wrapper_cfg.device_ids=None")
        sys.argv = [str(script), str(config), *_with_options(arguments, options)]
        with never_code(), _one_run(work_dir_of(config, arguments)):
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
    registry = importlib.import_module("contrastive_sr.hosts.mmagic.registry")
    if str(model["type"]).startswith(f"contrastive_sr.{registry.PREFIX}"):
        accepted = models.accepted_keys(registry.MODELS.get(model["type"]))
        for key in model:
            if key not in ("type", *accepted):
                name = model["type"].removeprefix("contrastive_sr.")
                raise ConfigError(f"model: {name} {unknown('key', key, accepted)}")
        if model.get("degradation") is not None:
            models.degradation_of_config(model["degradation"], (), 0, model.get("generator"))
        if model.get("methods"):
            build_quietly(model["methods"])
        _check_validation(model.get("generator"), config.get("val_dataloader"))


def check_work_dir(path: Path, arguments: Sequence[str]) -> None:
    """Refuse to write where another training has its checkpoints, before anything is written.

    MMEngine copies the config of a training into its folder; the copy is read and not run. Another is one of another
    `model`; for `--resume`, of another type of model.

    Raises:
        ConfigError: the folder holds checkpoints, and no config of this training.
    """
    config, given = _given(path, arguments)
    folder = work_dir_of(path, arguments)
    copies = sorted(folder.glob("*.py"))
    if not copies or not any(folder.glob("*.pth")):
        return
    models = [as_data(copy.read_text(errors="replace")).get("model") for copy in copies]
    types = [model.get("type") for model in models if isinstance(model, dict)]
    if as_data(config.pretty_text)["model"] in models or (given.resume and config.model["type"] in types):
        return
    raise ConfigError(
        f"work_dir: {folder} holds the checkpoints of another training ({copies[-1].name}), which this one would write "
        f'over. Give it a folder of its own: `work_dir = "work_dirs/{path.stem}"` in the config, or --work-dir. '
        "Nothing was written."
    )


def work_dir_of(path: Path, arguments: Sequence[str]) -> Path:
    """Where a training with a config writes, by the config and the arguments of MMagic's script."""
    config, given = _given(path, arguments)
    return Path(given.work_dir or config.get("work_dir") or Path("work_dirs", path.stem))


def _given(path: Path, arguments: Sequence[str]) -> tuple[Any, argparse.Namespace]:
    """A config with what the arguments change in it, and these."""
    from mmengine.config import Config, DictAction

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--work-dir")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    given, _ = parser.parse_known_args(list(arguments))
    config = Config.fromfile(str(path))
    config.merge_from_dict(given.cfg_options)
    return config, given


@contextmanager
def _one_run(folder: Path) -> Iterator[None]:
    """Keep a second training out of a `work_dir`, and out of the second in which another one there began.

    MMEngine calls the folder of each run's logs by the second.
    """
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        yield
        return
    with one_training(folder, folder / ".lock", "give this one a folder of its own by --work-dir"):
        while (folder / time.strftime("%Y%m%d_%H%M%S")).exists():
            time.sleep(0.05)
        yield


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
    except (Exception, SystemExit) as error:  # a config is Python code, which can fail in any way
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
