"""The plugin for forks of BasicSR, which have its models under another package's name; one call, and no BasicSR."""

from __future__ import annotations

import logging
from typing import Any

from contrastive_sr.criteria import CRITERIA
from contrastive_sr.errors import HostError
from contrastive_sr.hosts.basicsr.pattern import calculate_pattern
from contrastive_sr.hosts.basicsr.training import GANTraining, PixelTraining
from contrastive_sr.hosts.networks import by_options
from contrastive_sr.networks import NETWORKS

# What is called or extended of the host's model.
_MODEL = (
    "init_training_settings",
    "setup_optimizers",
    "get_optimizer",
    "model_to_device",
    "feed_data",
    "test",
    "reduce_loss_dict",
    "model_ema",
    "save",
    "save_network",
    "save_training_state",
    "resume_training",
)


def register(
    model_registry: Any,
    arch_registry: Any,
    sr_model: type,
    gan_model: type | None = None,
    *,
    loss_registry: Any = None,
    metric_registry: Any = None,
    logger: str = "basicsr",
) -> None:
    """Give a fork of BasicSR the models ``ContrastiveSRModel`` and ``ContrastiveSRGANModel``, and the papers' networks.

    They do what the plugin's models do in BasicSR, on top of the fork's own: see
    :class:`contrastive_sr.hosts.basicsr.models.ContrastiveSRModel`. Networks that the fork has under one of our names
    stay the fork's.

    Args:
        model_registry: the fork's ``MODEL_REGISTRY``.
        arch_registry: its ``ARCH_REGISTRY``; a ``trunk`` or ``teacher`` may then be named by it, too.
        sr_model: its ``SRModel``.
        gan_model: its ``ESRGANModel``. None: there will be no ``ContrastiveSRGANModel``.
        loss_registry: its ``LOSS_REGISTRY``, so that Cria-CL can name its losses. None: it cannot.
        metric_registry: its ``METRIC_REGISTRY``, so that validation can measure ``calculate_pattern``. None: it cannot.
        logger: the name that its ``get_root_logger`` has by default.

    Raises:
        HostError: a model that is not built as BasicSR's, or a registry that has our models already.

    Example:
        In ``traiNNer/models/__init__.py``, behind the import of all its models::

            from contrastive_sr.hosts.basicsr.fork import register
            from traiNNer.models.sr_model import SRModel
            from traiNNer.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

            register(MODEL_REGISTRY, ARCH_REGISTRY, SRModel)
    """
    models = {"ContrastiveSRModel": (PixelTraining, sr_model)}
    if gan_model is not None:
        models["ContrastiveSRGANModel"] = (GANTraining, gan_model)
    for name, (_, host) in models.items():
        if missing := [method for method in _MODEL if not callable(getattr(host, method, None))]:
            raise HostError(
                f"{host.__module__}.{host.__name__}: expected a model with the methods of BasicSR's SRModel, got one "
                f"without {', '.join(missing)}. Use the losses in the fork's own model: contrastive_sr.methods."
            )
        if name in model_registry:
            raise HostError(f"{name} is registered already. Call register() once, and not beside the BasicSR plugin.")
    shared = {"networks": arch_registry, "logger": logging.getLogger(logger)}
    for name, bases in models.items():
        model_registry.register(type(name, bases, {**shared, "__module__": __name__, "__doc__": bases[1].__doc__}))
    for name in NETWORKS:
        if name not in arch_registry:
            arch_registry.register(by_options(name))
    if metric_registry is not None:
        metric_registry.register(calculate_pattern)
    fork = sr_model.__module__.partition(".")[0]
    NETWORKS.add_host(fork, lambda: dict(iter(arch_registry)))
    if loss_registry is not None:
        CRITERIA.add_host(fork, lambda: dict(iter(loss_registry)))
