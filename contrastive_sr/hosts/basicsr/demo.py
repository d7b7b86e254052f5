"""The demo through BasicSR."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from contrastive_sr.hosts.basicsr.options import OptionLoader, plain
from contrastive_sr.hosts.demo import Schedule
from contrastive_sr.hosts.shipped import shipped_folder


class BasicSRDemo:
    """See `DemoHost`."""

    suffix = ".yml"
    methods = "methods"

    def base(self, data: Path, steps: int, schedule: Schedule, averaged: int) -> str:
        text = (shipped_folder("plugins") / "demo_pcl_edsr.yml").read_text()
        options: dict[str, Any] = plain(yaml.load(text, Loader=OptionLoader))
        del options["plugin"]  # our runner registers the models itself
        for part in ("train", "val"):
            options["datasets"][part]["dataroot_gt"] = str(data / part / "HR")
            options["datasets"][part]["dataroot_lq"] = str(data / part / "LRx4")
        options["datasets"]["train"]["batch_size_per_gpu"] = 4
        train = options["train"]
        train.update(total_iter=steps, ema_decay=1 - 1 / averaged)
        train["optim_g"]["lr"] = schedule.rate
        train["scheduler"].update(milestones=schedule.milestones, gamma=schedule.gamma)
        options["logger"].update(print_freq=100, save_checkpoint_freq=steps)
        return yaml.safe_dump(options, sort_keys=False)

    def changes(self, schedule: Schedule) -> Mapping[str, Any]:
        scheduler = {"milestones": schedule.milestones, "gamma": schedule.gamma}
        return {"train.optim_g.lr": schedule.rate, "train.scheduler": scheduler}
