"""For ``--import``: BasicSR's networks train with their maps in channels_last, with the same results up to rounding."""

from __future__ import annotations

import torch
from basicsr.models.base_model import BaseModel
from torch import nn

_to_device = BaseModel.model_to_device


def _in_channels_last(self: BaseModel, net: nn.Module) -> nn.Module:
    moved: nn.Module = _to_device(self, net.to(memory_format=torch.channels_last))
    return moved


BaseModel.model_to_device = _in_channels_last
