"""The registries of scope `contrastive_sr`: what `type="contrastive_sr.X"` in a config is looked up in."""

from __future__ import annotations

from typing import Any

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as _OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry
from torch import nn

from contrastive_sr.config import unknown
from contrastive_sr.criteria import CRITERIA
from contrastive_sr.errors import ConfigError
from contrastive_sr.networks import NETWORKS

_SCOPE = "contrastive_sr"
_LOCATIONS = ["contrastive_sr.hosts.mmagic"]

PREFIX = "Contrastive"  # of a model's name, with methods


class _Models(Registry):
    """Also has each model of MMagic with methods: `ContrastiveX` is made of `X` when it is first asked for."""

    def get(self, key: str) -> Any:
        """The class of a name, see mmengine."""
        name = key.removeprefix(f"{_SCOPE}.")
        if name.startswith(PREFIX) and name not in self.module_dict:
            from mmagic.models import BaseEditModel
            from mmagic.registry import MODELS as OF_MMAGIC

            from contrastive_sr.hosts.mmagic.models import with_methods

            classes = {key: cls for key, cls in OF_MMAGIC.module_dict.items() if isinstance(cls, type)}
            models = {key: cls for key, cls in classes.items() if issubclass(cls, BaseEditModel)}
            host = name.removeprefix(PREFIX)
            if host not in models:
                raise ConfigError(f"model: {name}: MMagic {unknown('model', host, sorted(models))}")
            self.register_module(name=name, module=with_methods(models[host]))
        return super().get(key)


MODELS = _Models("model", parent=_MODELS, scope=_SCOPE, locations=_LOCATIONS)
DATASETS = Registry("dataset", parent=_DATASETS, scope=_SCOPE, locations=_LOCATIONS)
TRANSFORMS = Registry("transform", parent=_TRANSFORMS, scope=_SCOPE, locations=_LOCATIONS)
HOOKS = Registry("hook", parent=_HOOKS, scope=_SCOPE, locations=_LOCATIONS)
METRICS = Registry("metric", parent=_METRICS, scope=_SCOPE, locations=_LOCATIONS)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor", parent=_OPTIM_WRAPPER_CONSTRUCTORS, scope=_SCOPE, locations=_LOCATIONS
)


def classes_of_host() -> dict[str, type[nn.Module]]:
    """Networks and losses by name that a config of MMagic can name, those of this adapter too."""
    from mmagic.registry import MODELS as OF_MMAGIC

    return {**OF_MMAGIC.module_dict, **MODELS.module_dict}


def use_names() -> None:
    """Let our configs name MMagic's networks and losses; if both hosts are loaded, the last call decides."""
    NETWORKS.add_host("MMagic", classes_of_host)
    CRITERIA.add_host("MMagic", classes_of_host)
