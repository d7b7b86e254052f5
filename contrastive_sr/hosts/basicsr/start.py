"""What a training needs before its first step, looked at before BasicSR moves the results of an earlier one away."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from basicsr.utils import registry
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY
from torch import nn

from contrastive_sr._checks import describe_error
from contrastive_sr.errors import ConfigError, ContrastiveSRError
from contrastive_sr.hosts.basicsr.amp import check_amp
from contrastive_sr.hosts.basicsr.attach import METHODS_OPTIMIZER, attached_methods, batch_images
from contrastive_sr.hosts.basicsr.datasets import CheckedPairedImageDataset, HighResolutionImageDataset
from contrastive_sr.hosts.basicsr.late import check_parts
from contrastive_sr.hosts.basicsr.options import PREFIX
from contrastive_sr.hosts.basicsr.steps import check_batches
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.endings import check_shared_memory
from contrastive_sr.hosts.in_step import methods_optimizer
from contrastive_sr.methods import Methods
from contrastive_sr.networks import NETWORKS

_OURS = (CheckedPairedImageDataset.__name__, HighResolutionImageDataset.__name__)


def check_start(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Build what model and datasets will build, and let it find what is wrong with the options.

    Args:
        opt: the options, as BasicSR has parsed them.

    Returns:
        The datasets of ours, which have looked at their files, by phase.

    Raises:
        ContrastiveSRError: a network, loss, metric, method, degradation or dataset that cannot be used.
    """
    check_parts(opt, registry)
    _check_memory(opt)
    trains_methods = opt["model_type"].startswith(PREFIX)
    check_amp(opt)
    if trains_methods or opt["network_g"]["type"] in NETWORKS:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # the model will say them
            net = _network(opt["network_g"])
            if trains_methods:
                methods, degradation = attached_methods(opt, net, ARCH_REGISTRY)
                methods_optimizer(methods, opt["train"].get("optim_methods"), METHODS_OPTIMIZER)
                _check_batch(opt, methods, degradation)
    datasets = {
        phase: DATASET_REGISTRY.get(options["type"])(deepcopy(options))
        for phase, options in opt["datasets"].items()
        if options.get("type") in _OURS
    }
    if "train" in datasets:
        check_batches(len(datasets["train"]), opt)
    return datasets


def _check_memory(opt: Mapping[str, Any]) -> None:
    """Require shared memory for the processes that load images."""
    data, size = opt["datasets"]["train"], opt["datasets"]["train"].get("gt_size")
    workers = data.get("num_worker_per_gpu", 0)
    if isinstance(size, int) and isinstance(workers, int):
        workers *= 1 if opt["dist"] else opt["num_gpu"] or 1
        bytes_of_image = 3 * 4 * size**2  # LR images add little
        check_shared_memory(batch_images(opt) * bytes_of_image, workers, "datasets: train: num_worker_per_gpu")


def _check_batch(opt: Mapping[str, Any], methods: Methods, degradation: TrainingDegradation | None) -> None:
    """Let the methods see a batch as training will have them, but black, and of no more than two images."""
    size, scale = opt["datasets"]["train"].get("gt_size"), opt["scale"]
    if not isinstance(size, int) or size < scale or size % scale:
        return  # the dataset will say so
    hr = torch.zeros(min(batch_images(opt), 2), 3, size, size)
    batch = {"lr": hr[..., ::scale, ::scale], "hr": hr} if degradation is None else degradation.batch(hr, hr, step=0)
    methods.check_batch(batch)


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
