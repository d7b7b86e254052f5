"""The demo through MMagic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrastive_sr.hosts.demo import Schedule
from contrastive_sr.hosts.mmagic.runner import read_config
from contrastive_sr.hosts.shipped import shipped_folder


class MMagicDemo:
    """See `DemoHost`."""

    suffix = ".py"
    methods = "model.methods"

    def base(self, data: Path, steps: int, schedule: Schedule, averaged: int) -> str:
        config = read_config(shipped_folder("configs") / "demo_pcl_edsr.py")
        # network, patches and average as in the demo through BasicSR
        config.model.generator.update(mid_channels=32, num_blocks=6)
        for transform in config.train_dataloader.dataset.pipeline:
            if transform.type == "PairedRandomCrop":
                transform.gt_patch_size = 96
        config.custom_hooks = [
            dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=1 / averaged, update_buffers=False)
        ]
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.dataset.data_root = str(data)
        config.train_cfg.max_iters = steps
        config.optim_wrapper.generator.optimizer.lr = schedule.rate
        config.param_scheduler.update(milestones=schedule.milestones, gamma=schedule.gamma)
        config.default_hooks.logger.interval = 100
        config.default_hooks.checkpoint.interval = steps
        return str(config.pretty_text)

    def changes(self, schedule: Schedule) -> Mapping[str, Any]:
        scheduler = {"milestones": schedule.milestones, "gamma": schedule.gamma}
        return {"optim_wrapper.generator.optimizer.lr": schedule.rate, "param_scheduler": scheduler}
