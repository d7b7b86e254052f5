"""Reads BasicSR's option files as data, without running code in them, and checks them before a training starts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from contrastive_sr._checks import check_count, check_number, describe, describe_error
from contrastive_sr.config import missing, unknown
from contrastive_sr.embeddings.weights import read_sections
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.basicsr.late import check_late, may_be_read
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.in_step import check_optimizer
from contrastive_sr.hosts.prepared import how_to_prepare
from contrastive_sr.hosts.yaml_files import load_yaml

PLUGIN = "contrastive_sr.hosts.basicsr.plugin.__version__"
PREFIX = "Contrastive"  # of a model's name, with methods


class OptionLoader(yaml.SafeLoader):
    """YAML's safe loader, with ordered mappings, that knows our own ``plugin:`` line and no other Python tag."""


def _ordered(loader: OptionLoader, node: yaml.MappingNode) -> OrderedDict[Any, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    mapping: OrderedDict[Any, Any] = OrderedDict()
    lines: dict[Any, int] = {}
    for (key, value), (key_node, _) in zip(pairs, node.value, strict=True):
        line = key_node.start_mark.line + 1
        if key in mapping:
            raise ConfigError(
                f"lines {lines[key]} and {line} of the option file: the key {key!r} stands there twice. Merge both, or "
                "remove one."
            )
        mapping[key], lines[key] = value, line
    return mapping


def _python_tag(loader: OptionLoader, suffix: str, node: yaml.Node) -> str:
    if suffix == f"name:{PLUGIN}":
        from contrastive_sr import __version__

        return __version__
    raise ConfigError(
        f"line {node.start_mark.line + 1} of the option file: the tag !!python/{suffix} would run code. "
        f"`contrastive-sr train` accepts `!!python/name:{PLUGIN}` alone. Name your own file on the "
        "command line, `--import FILE`, or load other plugins with `python -m basicsr.train`."
    )


OptionLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _ordered)
OptionLoader.add_multi_constructor("tag:yaml.org,2002:python/", _python_tag)


def read_options(path: Path) -> Any:
    """What an option file holds.

    Raises:
        ConfigError: no valid YAML, or a tag that would run code.
    """
    try:
        return load_yaml(path.read_text(), OptionLoader)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:  # such as of `!!float fast`, or a list as a key
        raise ConfigError(f"{path} cannot be read as YAML: {describe_error(error)}.") from error


def plain(value: Any) -> Any:
    """What an option file holds as plain dictionaries and lists, which the safe dumper can write."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def host_model(name: str) -> str:
    """The host's model in the name of one with methods; any other name as it is."""
    return name.removeprefix(PREFIX)


def check_options(opt: object, models: Collection[str], networks: Collection[str]) -> None:
    """Check parts, names and files of an option file, before anything is written.

    Args:
        opt: what the option file holds.
        models: the host's models; of each there is one with methods, too.
        networks: accepted ``type`` of ``network_g`` and ``network_d``.

    Raises:
        ConfigError: an unknown name, a missing part, a misspelt key, a file that is not there, or options that BasicSR
            would fail at later.
        DataError: a folder of images that is not there, or that may not be read.
    """
    if not isinstance(opt, Mapping):
        raise ConfigError(
            f"the option file: expected a mapping with `model_type`, `datasets` ..., got {describe(opt)}."
        )
    for key in ("name", "model_type", "scale", "num_gpu", "datasets", "network_g", "path", "train", "logger"):
        if key not in opt:
            raise ConfigError(f"the option file: {missing(key, opt)}")
    for key in ("name", "model_type"):
        if not isinstance(opt[key], str) or not opt[key]:
            raise ConfigError(f"{key}: expected a name, got {describe(opt[key])}.")
    for key in ("datasets", "network_g", "path", "train", "logger"):
        _check_mapping(opt[key], key)
    for key in ("network_d", "val"):
        if opt.get(key) is not None:
            _check_mapping(opt[key], key)
    host = host_model(opt["model_type"])
    if host not in models:
        accepted = sorted([*models, *(PREFIX + model for model in models)])
        raise ConfigError(f"model_type: BasicSR {unknown('model', opt['model_type'], accepted)}")
    ours = opt["model_type"] != host
    if ours and not opt.get("methods") and not opt.get("degradation"):
        raise ConfigError(
            f"{opt['model_type']} needs `methods:` in the option file, a list such as "
            f"`- {{type: PCL, loss_weight: 0.0004}}`. Without methods and without `degradation:`, use {host}."
        )
    for key in ("methods", "degradation"):
        if opt.get(key) and not ours:
            raise ConfigError(
                f"model_type: {host} does not train with `{key}:`. Use {PREFIX}{host}, or take `{key}:` out."
            )
    check_count(opt["scale"], "scale", at_least=2 if opt.get("degradation") else 1)
    if "train" not in opt["datasets"]:
        raise ConfigError(f"datasets: expected a mapping with `train`, got {describe(opt['datasets'])}.")
    train = opt["train"]
    for key in ("total_iter", "optim_g", "scheduler"):
        if key not in train:
            raise ConfigError(f"train: {missing(key, train)}")
    check_number(train["total_iter"], "train: total_iter", at_least=1)  # the host cuts off what is behind the point
    for key in ("optim_g", "optim_d"):
        if train.get(key) is not None:
            check_optimizer(train[key], f"train: {key}", ("Adam",))  # the one that BasicSR has
    if ours and not train.get("pixel_opt"):
        raise ConfigError(
            f"train: expected pixel_opt, by which the methods enter the step, got {', '.join(map(str, train))}."
        )
    if not train.get("pixel_opt") and not train.get("perceptual_opt"):
        raise ConfigError(f"train: expected pixel_opt or perceptual_opt, got {', '.join(map(str, train))}.")
    for key, value in train.items():
        if str(key).endswith("_opt") and value is not None:
            _check_mapping(value, f"train: {key}")
    for key in ("network_g", "network_d"):
        kind = opt[key].get("type") if opt.get(key) is not None else None
        if opt.get(key) is not None and kind not in networks:
            raise ConfigError(f"{key}: BasicSR {unknown('network', kind, sorted(networks))}")
    for key, value in opt["path"].items():
        if str(key).startswith("pretrain_network") and value is not None:
            _check_pretrained(value, str(key), opt["path"], ours)
    for name, dataset in opt["datasets"].items():
        _check_mapping(dataset, f"datasets: {name}")
        for key, value in dataset.items():
            where = f"datasets: {name}: {key}"
            if str(key).startswith("dataroot") and value is not None and not _is_there(value, where, file=False):
                raise DataError(
                    f"{where}: expected an existing folder, got {value}. Check the path.{how_to_prepare(value)}"
                )
            if str(key).startswith("dataroot") and value is not None and not may_be_read(Path(value).expanduser()):
                raise DataError(f"{where}: expected a folder that you may read, got {value}. Change its permissions.")
    check_late(opt)


def _check_mapping(value: object, name: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: expected a mapping of keys to values, got {describe(value)}.")


def _check_pretrained(value: object, key: str, path: Mapping[str, Any], ours: bool) -> None:
    """Require a file that BasicSR finds a network in; our models read a plain state dict without being told so."""
    if not isinstance(value, str) or not _is_there(value, f"path: {key}"):
        raise ConfigError(f"path: {key}: expected an existing file, got {value}.")
    if not may_be_read(Path(value).expanduser()):
        raise ConfigError(f"path: {key}: expected a file that you may read, got {value}. Change its permissions.")
    held = read_sections(value, f"path: {key}")
    of_file = f"param_key{key.removeprefix('pretrain_network')}"
    wanted = path.get(of_file, "params")
    # BasicSR takes `params` where the wanted key is missing, and the whole file where none is wanted
    if not {wanted or "", "params" if wanted else ""} & held.keys() and not (ours and "" in held):
        got = ", ".join(map(repr, filter(None, held))) or "a plain state dict"
        raise ConfigError(
            f"path: {of_file}: expected what {value} holds, {got}, got {wanted!r}. Of a plain state dict it is `~`."
        )


def _is_there(path: object, name: str, file: bool = True) -> bool:
    """Whether there is a file, or with ``file=False`` anything at all, of this name."""
    if not isinstance(path, str):
        raise ConfigError(f"{name}: expected a path, got {describe(path)}.")
    place = Path(path).expanduser()
    return place.is_file() if file else place.exists()


def degradation_of_options(opt: Mapping[str, Any], wants: Sequence[str]) -> TrainingDegradation | None:
    """The ``degradation:`` of an option file, checked against its training data.

    Args:
        opt: what the option file holds.
        wants: names of what the methods read beside LR and HR images.

    Returns:
        None if there is none.

    Raises:
        ConfigError: it is unknown or does not have the scale, or the training data do not fit it.
    """
    data = opt["datasets"].get("train", {})
    ours = data.get("type") == "HighResolutionImageDataset"
    if not opt.get("degradation"):
        if ours:
            raise ConfigError(
                "datasets: train: HighResolutionImageDataset has no LR images. Give the option file a `degradation:`, "
                "e.g. dasr-isotropic-x4, or train on pairs with CheckedPairedImageDataset."
            )
        return None
    if data.get("dataroot_lq"):
        raise ConfigError(
            "datasets: train: `degradation:` makes the LR images from HR images alone, got a folder of LR images, "
            f"{data['dataroot_lq']}. Take dataroot_lq out and use `type: HighResolutionImageDataset`; or take "
            "`degradation:` out, to train on these pairs."
        )
    if data.get("type") in ("PairedImageDataset", "CheckedPairedImageDataset"):
        raise ConfigError(
            "datasets: train: `degradation:` makes the LR images from HR images alone. Expected `type: "
            f"HighResolutionImageDataset`, got {data['type']}, which reads LR images."
        )
    degradation = TrainingDegradation(opt["degradation"], wants, opt.get("manual_seed") or 0, opt["scale"])
    if ours and degradation.needs_second_crop and data.get("crops") != 2:
        raise ConfigError(
            "datasets: train: a method compares two crops of each image. Expected `crops: 2`, got "
            f"{data.get('crops', 1)}."
        )
    size, least = data.get("gt_size"), degradation.degradation.kernel_size
    if isinstance(size, int) and (size < least or size % opt["scale"]):
        raise ConfigError(
            f"datasets: train: gt_size: expected a multiple of {opt['scale']}, the scale, and at least {least}, the "
            f"kernel's size, got {size}."
        )
    return degradation
