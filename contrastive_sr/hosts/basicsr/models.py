"""Any model of BasicSR with methods, made when an option file asks for it: ``model_type: ContrastiveSwinIRModel``."""

from __future__ import annotations

import logging
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError, HostError
from contrastive_sr.hosts.basicsr.options import PREFIX, host_model
from contrastive_sr.hosts.basicsr.training import WithMethods

# What is called or extended of the host's model.
_MODEL = (
    "load_network",
    "init_training_settings",
    "model_to_device",
    "feed_data",
    "test",
    "optimize_parameters",
    "reduce_loss_dict",
    "get_current_log",
    "model_ema",
    "save",
    "save_network",
    "save_training_state",
    "resume_training",
)


def with_methods(host: type) -> type:
    """A model of the host that trains with methods.

    Beside what the host's model reads, the option file has ``methods`` (see
    :func:`contrastive_sr.methods.build_methods`) and, in ``train``, ``optim_methods``; and, to train on HR images
    alone, ``degradation`` (see :func:`contrastive_sr.degradations.build_degradation`), with which there may be no
    ``methods``. Checkpoints of the network are those of the host's model, with no other key.

    Args:
        host: e.g. BasicSR's ``SwinIRModel``, or one of a codebase built on BasicSR.

    Raises:
        HostError: a class that is not built as BasicSR's ``SRModel``, or one for videos.

    Example:
        >>> from contrastive_sr.hosts.basicsr.host import import_basicsr
        >>> with_methods(import_basicsr("basicsr.models.swinir_model").SwinIRModel).__name__
        'ContrastiveSwinIRModel'
    """
    if any(cls.__name__ == "VideoBaseModel" for cls in host.__mro__):
        raise HostError(
            f"model_type: {PREFIX}{host.__name__}: expected a model for images, got one for videos, whose batches the "
            "methods cannot read. Train it without methods, or a model for images with them."
        )
    if missing := [name for name in _MODEL if not callable(getattr(host, name, None))]:
        raise HostError(
            f"{host.__module__}.{host.__name__}: expected a model with the methods of BasicSR's SRModel, got one "
            f"without {', '.join(missing)}. Use the losses in a training loop of your own: contrastive_sr.methods."
        )
    shared = {"networks": ARCH_REGISTRY, "logger": logging.getLogger("basicsr")}
    return type(
        PREFIX + host.__name__, (WithMethods, host), {**shared, "__module__": __name__, "__doc__": host.__doc__}
    )


_stock_get = MODEL_REGISTRY.get
_made: dict[str, type] = {}


def _get(name: str, *args: Any, **kwargs: Any) -> Any:
    """As the registry's own; a model with methods is made of the host's when it is first asked for."""
    if not name.startswith(PREFIX) or name in MODEL_REGISTRY:
        return _stock_get(name, *args, **kwargs)
    if name not in _made:
        try:
            host = _stock_get(host_model(name), *args, **kwargs)
        except KeyError as error:
            models = [key.removesuffix("_basicsr") for key, _ in MODEL_REGISTRY]
            raise ConfigError(f"model_type: {name}: BasicSR {unknown('model', host_model(name), models)}") from error
        _made[name] = with_methods(host)
    return _made[name]


MODEL_REGISTRY.get = _get  # in memory; models may be registered later, too
