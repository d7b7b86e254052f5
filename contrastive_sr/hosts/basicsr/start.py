"""What a training needs before its first step, looked at before BasicSR moves the results of an earlier one away."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from torch import nn

from contrastive_sr._checks import check_count, describe_error
from contrastive_sr.errors import ConfigError, ContrastiveSRError
from contrastive_sr.hosts.basicsr.datasets import CheckedPairedImageDataset, HighResolutionImageDataset
from contrastive_sr.hosts.basicsr.options import check_optimizer, training_degradation
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.kernels import check_known, kernel_size
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.methods import MethodList, build_methods
from contrastive_sr.networks import NETWORKS

_OURS = (CheckedPairedImageDataset.__name__, HighResolutionImageDataset.__name__)


def check_start(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Build what model and datasets will build, and let it find what is wrong with the options.

    Args:
        opt: the options, as BasicSR has parsed them.

    Returns:
        The datasets of ours, which have looked at their files, by phase.

    Raises:
        ContrastiveSRError: a network, method, degradation or dataset that cannot be used.
    """
    trains_methods = opt["model_type"].startswith("Contrastive")
    if trains_methods or opt["network_g"]["type"] in NETWORKS:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # the model will say them
            net = _network(opt["network_g"])
            if trains_methods:
                methods, degradation = attached_methods(opt, net)
                methods_optimizer(opt, methods)
                _check_batch(opt, methods, degradation)
    return {
        phase: DATASET_REGISTRY.get(options["type"])(deepcopy(options))
        for phase, options in opt["datasets"].items()
        if options.get("type") in _OURS
    }


def attached_methods(opt: Mapping[str, Any], net: nn.Module) -> tuple[MethodList, TrainingDegradation | None]:
    """The methods and the degradation of the options, which go with network, data and each other.

    Args:
        opt: the options, as BasicSR has parsed them.
        net: the SR network.

    Raises:
        ConfigError: something is unknown or missing, or does not go with the rest.
        DataError: batches lack what a method needs or are too small or too large, or the kernels of validation images
            are not known to a network that reads them.
    """
    methods = build_methods(opt.get("methods"), optional=bool(opt.get("degradation")))
    degradation = training_degradation(opt, methods.wants)
    stated = stated_scale(ARCH_REGISTRY.get(opt["network_g"]["type"]), opt["network_g"])
    if stated is not None and stated[1] != opt["scale"]:
        raise ConfigError(
            f"network_g: {stated[0]}: expected {opt['scale']}, the scale of the option file, got {stated[1]}."
        )
    methods.attach(net)
    images = _images(opt)
    if degradation is not None:
        degradation.check_images(images)
    names = {"lr", "hr"} if degradation is None else degradation.names
    methods.check_data(names, images * (opt.get("world_size") or 1))
    size = kernel_size(net)
    if size is not None and opt.get("val") is not None:
        for phase, options in opt["datasets"].items():
            if phase.startswith("val") and options.get("dataroot_lq"):
                check_known(options["dataroot_lq"], size)
    return methods, degradation


def methods_optimizer(opt: Mapping[str, Any], methods: MethodList) -> dict[str, Any] | None:
    """The options of the methods' optimizer; None if they train no parts of their own.

    Raises:
        ConfigError: there are none, and the methods need them.
    """
    if not methods.trainable:
        return None
    options = opt["train"].get("optim_methods")
    if options is None:
        raise ConfigError(
            "train: expected `optim_methods` for the parts that the methods train, e.g. "
            "`optim_methods: {type: Adam, lr: !!float 1e-4, betas: [0.9, 0.999]}`, got none."
        )
    return check_optimizer(options, "train: optim_methods")


def _images(opt: Mapping[str, Any]) -> int:
    """How many images a batch of one process will have."""
    images = check_count(opt["datasets"]["train"].get("batch_size_per_gpu"), "datasets: train: batch_size_per_gpu")
    return images if opt["dist"] else images * (opt["num_gpu"] or 1)


def _check_batch(opt: Mapping[str, Any], methods: MethodList, degradation: TrainingDegradation | None) -> None:
    """Let the methods see a batch as training will have them, but black, and of no more than two images."""
    size, scale = opt["datasets"]["train"].get("gt_size"), opt["scale"]
    if not isinstance(size, int) or size < scale or size % scale:
        return  # the dataset will say so
    hr = torch.zeros(min(_images(opt), 2), 3, size, size)
    batch = {"lr": hr[..., ::scale, ::scale], "hr": hr} if degradation is None else degradation.batch(hr, hr, step=0)
    for method in methods.methods:
        method.check_batch(batch)


def _network(options: Mapping[str, Any]) -> nn.Module:
    arguments = dict(deepcopy(options))
    kind = arguments.pop("type")
    try:
        net: nn.Module = ARCH_REGISTRY.get(kind)(**arguments)
    except ContrastiveSRError:
        raise
    except Exception as error:  # BasicSR's networks check nothing, and can fail in any way
        raise ConfigError(f"network_g: {kind} cannot be built with these options: {describe_error(error)}.") from error
    return net
