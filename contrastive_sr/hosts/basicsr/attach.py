"""The methods of an option file, attached to the network and checked against its data; imports no host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from contrastive_sr._checks import check_count
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.basicsr.options import degradation_of_options
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.hosts.kernels import check_known, kernel_size
from contrastive_sr.hosts.networks import stated_scale
from contrastive_sr.methods import Methods, build_methods

METHODS_OPTIMIZER = "train: optim_methods"


def attached_methods(
    opt: Mapping[str, Any], net: nn.Module, networks: Any
) -> tuple[Methods, TrainingDegradation | None]:
    """The methods and the degradation of the options, checked against the network, the data and each other.

    Args:
        opt: the options, as BasicSR has parsed them.
        net: the SR network.
        networks: the host's registry of networks.

    Raises:
        ConfigError: something is unknown or missing, or does not fit the rest.
        DataError: batches lack what a method needs or are too small or too large, or the kernels of validation images
            are not known to a network that reads them.
    """
    methods = build_methods(
        opt.get("methods"),
        optional=bool(opt.get("degradation")),
        skip_nonfinite=opt["train"].get("skip_nonfinite", 0),
    )
    degradation = degradation_of_options(opt, methods.wants)
    stated = stated_scale(networks.get(opt["network_g"]["type"]), opt["network_g"])
    if stated is not None and stated[1] != opt["scale"]:
        raise ConfigError(
            f"network_g: {stated[0]}: expected {opt['scale']}, the scale of the option file, got {stated[1]}."
        )
    methods.attach(net)
    images = batch_images(opt)
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


def batch_images(opt: Mapping[str, Any]) -> int:
    """How many images a batch of one process will have."""
    images = check_count(opt["datasets"]["train"].get("batch_size_per_gpu"), "datasets: train: batch_size_per_gpu")
    return images if opt["dist"] else images * (opt["num_gpu"] or 1)
