"""Option files for short trainings with BasicSR."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.options import PLUGIN, OptionLoader
from contrastive_sr.hosts.in_step import STATE_SUFFIX

PROJECT = Path(__file__).resolve().parents[2]


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_multi_representer(dict, lambda dumper, value: dumper.represent_dict(value.items()))


def read_options(name: str) -> dict[str, Any]:
    """An option file of ``plugins/``, as data."""
    with open(PROJECT / "plugins" / f"{name}.yml") as file:
        return yaml.load(file, Loader=OptionLoader)


def load(path: Path) -> Any:
    """A file that BasicSR saved, of tensors and plain containers alone; a training state with the methods' beside it.

    The methods' optimizer comes last among the ``optimizers``.
    """
    assert path.is_file(), f"{path.name} not among {sorted(p.name for p in path.parent.iterdir())}"
    content = torch.load(path, map_location="cpu", weights_only=True)
    beside = path.with_suffix(STATE_SUFFIX)
    if path.suffix == ".state" and beside.is_file():
        own = torch.load(beside, map_location="cpu", weights_only=True)
        content["methods"] = own["methods"]
        content["optimizers"] += [] if own["optimizer"] is None else [own["optimizer"]]
    return content


def forget_log() -> None:
    """Let the next training in this process open a log of its own; BasicSR opens one a process."""
    import_basicsr("basicsr.utils.logger").initialized_logger.clear()
    logging.getLogger("basicsr").handlers.clear()


def write_options(folder: Path, name: str, data: Path, changes: Mapping[str, Any], file: str = "options.yml") -> Path:
    """Write a shipped option file with a few changes, for the data set in ``data``.

    Args:
        folder: where to write it.
        name: file below ``plugins/``, without ending.
        data: folder with ``train`` and ``val``.
        changes: new values by path, e.g. ``{"train:total_iter": 6}``; None removes the key. The LR folder of training
            is named only where the shipped file names one.
        file: name of the new file.
    """
    options = read_options(name)
    small: dict[str, Any] = {
        "datasets:train:dataroot_gt": str(data / "train/HR"),
        "datasets:val:dataroot_gt": str(data / "val/HR"),
        "datasets:val:dataroot_lq": str(data / "val/LRx4"),
        "datasets:train:gt_size": 32,
        "datasets:train:batch_size_per_gpu": 2,
        "num_gpu": 0,
    }
    if "dataroot_lq" in options["datasets"]["train"]:
        small["datasets:train:dataroot_lq"] = str(data / "train/LRx4")
    small.update(changes)
    for path, value in small.items():
        *parents, key = path.split(":")
        place = options
        for parent in parents:
            place = place[parent]
        if value is None:
            place.pop(key, None)
        else:
            place[key] = value
    path = folder / file
    dump_options(options, path)
    return path


def dump_options(options: Mapping[str, Any], path: Path) -> None:
    """Write options as a file that loads the plugin."""
    others = {key: value for key, value in options.items() if key != "plugin"}
    path.write_text(f"plugin: !!python/name:{PLUGIN}\n" + yaml.dump(others, Dumper=_Dumper, sort_keys=False))
