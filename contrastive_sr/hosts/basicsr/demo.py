"""The demo through BasicSR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from contrastive_sr.errors import DataError
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.basicsr.options import OptionLoader, plain
from contrastive_sr.hosts.demo import Plan
from contrastive_sr.hosts.shipped import shipped_folder


class BasicSRDemo:
    """See `DemoHost`."""

    suffix = ".yml"

    def config(self, plan: Plan) -> str:
        text = (shipped_folder("plugins") / "demo_pcl_edsr.yml").read_text()
        options: dict[str, Any] = plain(yaml.load(text, Loader=OptionLoader))
        # our runner registers the models itself, and a stock run needs no plugin
        del options["plugin"]
        options["name"], options["manual_seed"] = plan.name, plan.seed
        train = options["train"]
        if not plan.with_pcl:
            options["model_type"] = "SRModel"
            del options["methods"], train["optim_methods"]
        for part in ("train", "val"):
            options["datasets"][part]["type"] = "PairedImageDataset"
            options["datasets"][part]["dataroot_gt"] = str(plan.data / part / "HR")
            options["datasets"][part]["dataroot_lq"] = str(plan.data / part / "LRx4")
        options["datasets"]["train"]["batch_size_per_gpu"] = 4
        train["total_iter"] = plan.steps
        train["optim_g"]["lr"] = 1e-3
        train["scheduler"]["milestones"] = plan.milestones
        train["ema_decay"] = 1 - 10 / plan.steps  # the average covers a small part of any run
        options["val"].update(val_freq=plan.validation_interval, save_img=False)
        options["logger"].update(print_freq=plan.log_interval, save_checkpoint_freq=plan.steps)
        return yaml.safe_dump(options, sort_keys=False)

    def outputs(self, plan: Plan) -> Mapping[str, Path]:
        experiment, events = self.run_folders(plan)
        return {"checkpoints": experiment / "models", "log": self._log(plan), "TensorBoard events": events}

    def run_folders(self, plan: Plan) -> list[Path]:
        return [plan.folder / "experiments" / plan.name, plan.folder / "tb_logger" / plan.name]

    def network(self, plan: Plan) -> Callable[[Tensor], Tensor]:
        build = import_basicsr("basicsr.archs").build_network
        options = yaml.load(self.config(plan), Loader=yaml.SafeLoader)
        path = self.run_folders(plan)[0] / "models" / "net_g_latest.pth"
        network: torch.nn.Module = build(options["network_g"])
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["params_ema"])
        return network.eval()

    def _log(self, plan: Plan) -> Path:
        logs = sorted(self.run_folders(plan)[0].glob("train_*.log"))
        if not logs:
            raise DataError(f"Expected BasicSR's log in {self.run_folders(plan)[0]}, but there is none. Try --fresh.")
        return logs[-1]
