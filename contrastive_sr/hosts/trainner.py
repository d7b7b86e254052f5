"""Methods in traiNNer-redux, as an entry of ``losses:``; imports nothing of it.

Two lines at the end of ``traiNNer/models/__init__.py`` let it read the entry::

    from contrastive_sr.hosts.trainner import with_methods
    SRModel, RealESRGANModel = with_methods(SRModel), with_methods(RealESRGANModel)

The same for ``RealESRGANPairedModel``, where pairs are mixed with LR images made on the fly (``dataroot_lq_prob``).
In the option file::

    losses:
      - {type: charbonnierloss, loss_weight: 1.0}
      - type: contrastive
        loss_weight: 1.0
        methods: [{type: PCL, loss_share: 0.2}]
        optim_methods: {type: Adam, lr: 0.0001}

What is relied on, as it is in the commit 6862931 of June 2026:

- the names ``SRModel``, ``RealESRGANModel`` and ``RealESRGANPairedModel`` of ``traiNNer.models``, by which its
  ``build_model`` makes models;
- in the options ``train.losses``, a list of dicts, ``datasets["train"].batch_size_per_gpu``, ``world_size``,
  ``path.training_states``, ``path.resume_state``, ``input_pixel_format`` and ``output_pixel_format``;
- of a model ``opt``, ``device``, ``net_g``, ``optimizer_g``, ``lq``, ``gt``, and ``losses``: modules by label, in the
  order of the options. Each is called as ``loss(output, target)`` but the labels of ``_NO_PIXEL_LOSS``, and what it
  returns is multiplied by ``abs(loss.loss_weight)``; a negative weight stands for another target;
- ``init_training_settings()`` makes the losses, after ``net_g`` is on its device; ``optimize_parameters(...)`` is a
  step; ``save_training_state(epoch, iter)`` writes ``<iter>.state``, and nothing at -1; ``resume_training(state)`` has
  ``state["iter"]``;
- ``reduce_loss_dict(dict)`` is given all logged values, summed over images since the log was printed, at the end of
  every step that was not skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contrastive_sr._checks import describe
from contrastive_sr.config import unknown
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.in_step import InHostStep, MethodsInStep, attached, methods_optimizer
from contrastive_sr.samples import SampleGenerator

TYPE = "contrastive"
_KEYS = ("type", "loss_weight", "methods", "optim_methods", "skip_nonfinite")
_NO_PIXEL_LOSS = ("l_g_gan", "l_g_multiscalegan", "l_g_ldl")  # called with something else than SR image and target


class TraiNNerStep(InHostStep):
    """Mixed into a model of traiNNer-redux whose options have the entry.

    The methods enter by the first loss of positive weight that compares SR image and target, and learn once a batch:
    with ``accum_iter``, several times between two steps of the SR network.
    """

    opt: Any
    device: torch.device
    losses: dict[str, Any]
    gt: Tensor
    _label: str

    def init_training_settings(self) -> None:
        entry = entry_of(self.opt)
        assert entry is not None
        entries = self.opt.train.losses
        if not (own := [loss for loss in entries if not _is_ours(loss)]):
            raise _no_pixel_loss(())
        data = self.opt.datasets["train"]
        images = (data.batch_size_per_gpu or 1) * (self.opt.world_size or 1)
        skip = entry.get("skip_nonfinite", 0)
        methods = attached(entry["methods"], self.net_g, images, "traiNNer-redux", skip).to(self.device)
        for key in ("input_pixel_format", "output_pixel_format"):
            colours = getattr(self.opt, key, "rgb")
            samples = [part for part in methods.modules() if isinstance(part, SampleGenerator)]
            copies = [type(s).__name__ for s in samples if type(s).attach is not SampleGenerator.attach]
            if colours != "rgb" and copies:
                raise ConfigError(
                    f"losses: contrastive: {copies[0]} runs a copy of the network on RGB images: expected {key}: rgb, "
                    f"got {colours}. Choose other samples."
                )
        optimizer = methods_optimizer(methods, entry.get("optim_methods"), "losses: contrastive: optim_methods")
        self.in_step = MethodsInStep(methods, optimizer, warn=logging.getLogger("traiNNer").warning)
        self.opt.train.losses = own
        try:
            super().init_training_settings()  # type: ignore[misc]
        finally:
            self.opt.train.losses = entries
        for label, loss in self.losses.items():
            if label not in _NO_PIXEL_LOSS and loss.loss_weight > 0:
                self._label = label
                self.losses[label] = self.in_step.wrap(loss, outer_weight=float(loss.loss_weight))
                return
        raise _no_pixel_loss(self.losses)

    def reduce_loss_dict(self, loss_dict: dict[str, Any]) -> Any:
        """As in the host, whose log sums over images; the pixel loss without the methods' terms, and their metrics."""
        images = self.gt.shape[0]
        if self.in_step.metrics:
            added = self.in_step.parts[1].detach() * self.losses[self._label].outer_weight
            loss_dict[self._label] = loss_dict[self._label] - added * images
        for name, value in self.in_step.metrics.items():
            loss_dict[name] = loss_dict.get(name, 0) + value.float() * images
        return super().reduce_loss_dict(loss_dict)  # type: ignore[misc]

    def states_folder(self) -> Path:
        return Path(self.opt.path.training_states)

    def resumed_state(self) -> str | None:
        state: str | None = self.opt.path.resume_state
        return state


def with_methods(model: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A model of traiNNer-redux that trains with methods where its options have the entry, and as it is elsewhere.

    Args:
        model: ``SRModel``, or one that is built on it.
    """
    assert isinstance(model, type)
    mixed = type(
        f"Contrastive{model.__name__}", (TraiNNerStep, model), {"__module__": __name__, "__doc__": model.__doc__}
    )

    def build(opt: Any) -> Any:
        return (model if entry_of(opt) is None else mixed)(opt)

    return build


def entry_of(opt: Any) -> Mapping[str, Any] | None:
    """The entry with the methods among the losses of the options; None if there is none, or of weight 0.

    Raises:
        ConfigError: several, an unknown key, no methods, or another weight than 0 and 1.
    """
    train = getattr(opt, "train", None)
    entries = [loss for loss in (train.losses or []) if _is_ours(loss)] if train else []
    if not entries:
        return None
    if len(entries) > 1:
        raise ConfigError(f"losses: expected one entry of type {TYPE}, got {len(entries)}. Join their methods.")
    entry: Mapping[str, Any] = entries[0]
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"losses: {TYPE} {unknown('key', key, list(_KEYS))}")
    if entry.get("loss_weight") not in (0, 1):
        raise ConfigError(
            f"losses: {TYPE}: loss_weight: expected 1, or 0 to leave the methods out, got "
            f"{describe(entry.get('loss_weight'))}. Each method has a loss_share or loss_weight of its own."
        )
    if "methods" not in entry:
        raise ConfigError(f"losses: {TYPE}: expected the key 'methods', got {', '.join(entry)}.")
    return entry if entry["loss_weight"] else None


def _no_pixel_loss(labels: Iterable[str]) -> ConfigError:
    return ConfigError(
        "losses: expected one that compares SR image and target, with a positive loss_weight, by which the methods "
        f"enter the step, got {', '.join(labels) or 'none'}. Add `{{type: charbonnierloss, loss_weight: 1.0}}`."
    )


def _is_ours(loss: Mapping[str, Any]) -> bool:
    return str(loss.get("type", "")).lower() == TYPE
