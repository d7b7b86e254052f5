"""Methods in neosr: ``model_type = "contrastive_image"`` or ``"contrastive_otf"``.

neosr imports every file in its ``neosr/models``; one of this line, such as ``neosr/models/contrastive.py``, is enough::

    import contrastive_sr.hosts.neosr

In the option file::

    model_type = "contrastive_image"

    [[methods]]
    type = "PCL"
    loss_share = 0.2

    [train.optim_methods]
    type = "Adam"
    lr = 1e-4

What is relied on, as it is in version 0.1.0 and in the commit 31c7022 of April 2025:

- ``neosr.models.image.image``, ``neosr.models.otf.otf``, and ``neosr.utils.registry.MODEL_REGISTRY`` with ``register``;
- in the options ``methods``, ``train``, ``datasets.train.batch_size``, ``path.training_states`` and
  ``path.resume_state``: dicts, in which keys of others are allowed;
- of a model ``opt``, ``device``, ``net_g``, ``optimizer_g``, ``lq``, and ``cri_pix`` and ``cri_mssim``: modules whose
  weight is in them, or None, called once a step as ``loss(output, gt)``;
- ``init_training_settings()`` makes the losses, after ``net_g`` is on its device; ``optimize_parameters(iter)`` is a
  step; ``save_training_state(epoch, iter)`` writes ``<iter>.state``, and nothing at -1; ``resume_training(state)`` has
  ``state["iter"]``;
- ``reduce_loss_dict(dict)`` is given the tensors that are logged of a step, the pixel loss as it was returned.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neosr.models.image import image
from neosr.models.otf import otf
from neosr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.in_step import InHostStep, MethodsInStep, attached, methods_optimizer

_PIXEL_LOSSES = {"cri_pix": "pixel_opt", "cri_mssim": "mssim_opt"}
# Each calls the SR network or the loss more than once in a step, or with other images.
_OWN_WAYS = {"sam": "sharpness-aware minimization", "eco": "ECO"}


class NeosrStep(InHostStep):
    """Mixed into a model of neosr.

    The methods enter by the pixel loss, or where there is none by the MSSIM loss, and learn once a batch: with
    ``accumulate``, several times between two steps of the SR network.
    """

    opt: dict[str, Any]

    def init_training_settings(self) -> None:
        options = self.opt["train"]
        for key, name in _OWN_WAYS.items():
            if options.get(key):
                raise ConfigError(
                    f"train: {key}: methods cannot take part in a step of {name}, which calls the network twice. Take "
                    f"{key} out, or train without methods."
                )
        entrance = [name for name, key in _PIXEL_LOSSES.items() if _weight(options.get(key)) > 0]
        if not entrance:
            raise ConfigError(
                f"train: expected {' or '.join(_PIXEL_LOSSES.values())} of a positive loss_weight, by which the "
                f"methods enter the step, got {', '.join(options)}."
            )
        images = self.opt["datasets"]["train"].get("batch_size") or 1
        skip = options.get("skip_nonfinite", 0)
        methods = attached(self.opt.get("methods"), self.net_g, images, "neosr", skip).to(self.device)  # type: ignore[attr-defined]
        optimizer = methods_optimizer(methods, options.get("optim_methods"), "train: optim_methods")
        self.in_step = MethodsInStep(methods, optimizer, warn=logging.getLogger("neosr").warning)
        super().init_training_settings()  # type: ignore[misc]
        setattr(self, entrance[0], self.in_step.wrap(getattr(self, entrance[0])))

    def reduce_loss_dict(self, loss_dict: dict[str, Tensor]) -> Any:
        """As in the host, with what the methods log."""
        return super().reduce_loss_dict(self.in_step.logged(loss_dict))  # type: ignore[misc]

    def states_folder(self) -> Path:
        return Path(self.opt["path"]["training_states"])

    def resumed_state(self) -> str | Path | None:
        state: str | Path | None = self.opt["path"].get("resume_state")
        return state


def _weight(loss: Mapping[str, Any] | None) -> float:
    return float(loss.get("loss_weight", 1.0)) if loss else 0.0


for _model in (image, otf):
    MODEL_REGISTRY.register(type(f"contrastive_{_model.__name__}", (NeosrStep, _model), {"__module__": __name__}))
