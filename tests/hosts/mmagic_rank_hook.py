"""A hook that saves weights and buffers of every process, to be compared afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SaveEveryRank(Hook):  # type: ignore[misc]
    def after_train(self, runner: Any) -> None:
        model = runner.model.module if hasattr(runner.model, "module") else runner.model
        torch.save(model.state_dict(), Path(runner.work_dir, f"rank{get_rank()}.pth"))
