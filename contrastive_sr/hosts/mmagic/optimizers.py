"""Optimizers for MMEngine's runner: one for each part of a model that trains."""

from __future__ import annotations

from mmagic.engine.optimizers import MultiOptimWrapperConstructor as MMagicConstructor
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from contrastive_sr.hosts.mmagic.models import WithMethods
from contrastive_sr.hosts.mmagic.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MultiOptimWrapperConstructor(MMagicConstructor):
    """MMagic's `MultiOptimWrapperConstructor`, without the optimizer of methods that train no parts of their own.

    So a config need not be changed for a row of a paper's table in which nothing but the generator trains. PyTorch
    refuses an optimizer without parameters.
    """

    def __call__(self, module: nn.Module) -> OptimWrapper | OptimWrapperDict:
        """Builds the optimizers of `module`."""
        model = module.module if is_model_wrapper(module) else module
        trains_methods = not isinstance(model, WithMethods) or model.bare_methods.trainable
        if not trains_methods and isinstance(self.constructors, dict) and self.constructors.pop("methods", None):
            print_log("No method trains parts of its own: the optimizer of `methods` is not used.", "current")
        return super().__call__(module)
