"""The ``methods:`` list of a config: several methods in one training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from contrastive_sr._checks import describe
from contrastive_sr.config import build
from contrastive_sr.errors import ConfigError
from contrastive_sr.methods.base import Method, SRLosses
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.cria_cl import CriaCL
from contrastive_sr.methods.crl_sr import CRLSR
from contrastive_sr.methods.dasr import DASR, DegradationContrast, TrueKernel
from contrastive_sr.methods.layers import super_resolve
from contrastive_sr.methods.mpf import MPF
from contrastive_sr.methods.nce import SRNCE, BidirectionalNCE, InfoNCE
from contrastive_sr.methods.pcl import PCL
from contrastive_sr.methods.regularization import ContrastiveRegularization
from contrastive_sr.samples import Batch

METHODS: dict[str, type[Method]] = {
    cls.__name__: cls
    for cls in (
        PCL,
        InfoNCE,
        BidirectionalNCE,
        SRNCE,
        ContrastiveRegularization,
        DASR,
        DegradationContrast,
        TrueKernel,
        CRLSR,
        CriaCL,
        MPF,
    )
}


def register_method(cls: type[Method]) -> type[Method]:
    """Let configs name a method of your own by its class name; a decorator.

    Raises:
        ConfigError: no subclass of :class:`~contrastive_sr.methods.Method`, or the name is taken.

    Example:
        >>> @register_method
        ... class Quiet(Method):
        ...     def __init__(self, name="quiet"):
        ...         super().__init__(name, seed=0, weights={})
        ...
        ...     def terms(self, batch):
        ...         return {}
        >>> list(build_methods([{"type": "Quiet"}]))
        ['quiet']
        >>> del METHODS["Quiet"]
    """
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(f"register_method: expected a subclass of contrastive_sr.methods.Method, got {cls!r}.")
    known = METHODS.get(cls.__name__)
    if known is not None and known.__module__ != cls.__module__:
        raise ConfigError(
            f"register_method: {cls.__name__} is the name of a method in {known.__module__}. Rename yours."
        )
    METHODS[cls.__name__] = cls
    return cls


class MethodList(nn.ModuleDict):
    """Methods by name, with the three calls of a single :class:`~contrastive_sr.methods.Method`.

    Args:
        methods: the methods; their names must differ. With none, the network trains on the host's losses alone.

    Raises:
        ConfigError: two methods of one name, or a name that this class needs itself.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        names = [method.name for method in methods]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"methods: expected methods with different `name`, got {names}. Give each its own, e.g. `name: nce_2`."
            )
        super().__init__()
        for method in methods:
            if hasattr(self, method.name):
                raise ConfigError(f"methods: {method.name!r} cannot be a method's `name`. Try `my_{method.name}`.")
            self[method.name] = method

    @property
    def methods(self) -> list[Method]:
        """The methods, in the order of the config."""
        return [method for method in self.values() if isinstance(method, Method)]

    @property
    def wants(self) -> tuple[str, ...]:
        """What the methods read of a batch beside ``"lr"`` and ``"hr"``; see :class:`Method`."""
        return tuple(dict.fromkeys(name for method in self.methods for name in method.wants))

    @property
    def trainable(self) -> bool:
        """Whether any part of any method needs an optimizer."""
        return any(method.trainable for method in self.methods)

    def trained_parts(self) -> dict[str, nn.Module]:
        """All methods' networks that are of use beyond this training; see :meth:`Method.trained_parts`."""
        return {label: part for method in self.methods for label, part in method.trained_parts().items()}

    def attach(self, net: nn.Module) -> None:
        """Let all methods get to know the SR network; see :meth:`Method.attach`."""
        for method in self.methods:
            method.attach(net)

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse training data that a method cannot use; see :meth:`Method.check_data`."""
        for method in self.methods:
            method.check_data(names, images)

    def run(self, net: Callable[[Tensor], Tensor], batch: Batch) -> dict[str, Tensor]:
        """Super-resolve the batch, with one call of the network; see :meth:`Method.run`."""
        batch = dict(batch)
        if not self.methods and "sr" not in batch:
            batch.update(super_resolve(net, batch["lr"], ()))
        layers = [name for method in self.methods for name in method.layers]
        for method in self.methods:
            batch = method.run(net, batch, layers)
        return batch

    def compared(self, batch: Batch) -> list[Comparison]:
        """What all methods compare, their names before the titles; see :meth:`Method.compared`."""
        found = [(method.name, comparison) for method in self.methods for comparison in method.compared(batch)]
        return [replace(comparison, title=f"{name}: {comparison.title}") for name, comparison in found]

    def check_finite(self) -> None:
        """See :meth:`Method.check_finite`."""
        for method in self.methods:
            method.check_finite()

    def auxiliary_losses(self, batch: Batch) -> dict[str, Tensor]:
        """All methods' auxiliary losses; see :meth:`Method.auxiliary_losses`."""
        return {name: loss for method in self.methods for name, loss in method.auxiliary_losses(batch).items()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """:meth:`auxiliary_losses`, so that DistributedDataParallel synchronises their gradients."""
        return self.auxiliary_losses(batch)

    def sr_losses(self, batch: Batch, pixel_loss: Tensor | None = None) -> SRLosses:
        """All methods' weighted terms; see :meth:`Method.sr_losses`."""
        losses = SRLosses(batch["sr"].new_zeros(()), {}, {})
        for method in self.methods:
            part = method.sr_losses(batch, pixel_loss)
            losses.total = losses.total + part.total
            losses.terms.update(part.terms)
            losses.logs.update(part.logs)
            losses.host_factor *= part.host_factor
        return losses


def build_methods(configs: Sequence[Mapping[str, object]] | None, *, optional: bool = False) -> MethodList:
    """Build the ``methods:`` list of a config.

    Args:
        configs: one mapping a method: ``type`` (e.g. ``"PCL"``) and its arguments.
        optional: whether there may be none, as an empty list or as None.

    Raises:
        ConfigError: not a list of mappings, or an unknown type, key or value.
    """
    if optional and (configs is None or configs == []):
        return MethodList([])
    if not isinstance(configs, Sequence) or isinstance(configs, str) or not configs:
        raise ConfigError(f"methods: expected a list of mappings such as {{type: PCL, ...}}, got {describe(configs)}.")
    own = " A method of your own is imported first, as `contrastive-sr train --import FILE` does."
    return MethodList(
        [build(Method, METHODS, config, f"methods[{index}]", own) for index, config in enumerate(configs)]
    )


def build_quietly(configs: Sequence[Mapping[str, object]]) -> MethodList:
    """As :func:`build_methods`, to check them before a training: without warnings, and torch draws as if it was not.

    Raises:
        ConfigError: as there.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # the training will say them
        return build_methods(configs)
