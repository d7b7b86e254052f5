"""The demo through MMagic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contrastive_sr.errors import DataError
from contrastive_sr.hosts.demo import Plan
from contrastive_sr.hosts.mmagic.host import allow_own_checkpoints, load_host
from contrastive_sr.hosts.shipped import shipped_folder


class MMagicDemo:
    """See `DemoHost`."""

    suffix = ".py"

    def config(self, plan: Plan) -> str:
        return str(self._config(plan).pretty_text)

    def _config(self, plan: Plan) -> Any:
        load_host()
        from mmengine.config import Config

        config = Config.fromfile(str(shipped_folder("configs") / "demo_pcl_edsr.py"), import_custom_modules=False)
        adam: dict[str, Any] = dict(type="Adam", lr=1e-3, betas=(0.9, 0.999))
        if plan.with_pcl:
            config.optim_wrapper.generator.optimizer = adam
        else:
            config.model.type = "BaseEditModel"
            del config.model["methods"]
            config.optim_wrapper = dict(type="OptimWrapper", optimizer=adam)
        config.model.generator.update(mid_channels=32, num_blocks=6)
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.dataset.data_root = str(plan.data)
        config.train_cfg.update(max_iters=plan.steps, val_interval=plan.validation_interval)
        config.param_scheduler.milestones = plan.milestones
        # by default MMEngine logs validation under the number of the epoch, which is always 0 here
        config.default_hooks.logger.update(interval=plan.log_interval, log_metric_by_epoch=False)
        config.default_hooks.checkpoint.update(interval=plan.steps, save_best=None)
        config.log_processor.window_size = plan.log_interval
        # no validation images, since the demo draws its own; average and patches as in the demo through BasicSR
        config.custom_hooks = [
            dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=10 / plan.steps, update_buffers=False)
        ]
        for transform in config.train_dataloader.dataset.pipeline:
            if transform.type == "PairedRandomCrop":
                transform.gt_patch_size = 96
        config.randomness = dict(seed=plan.seed)
        config.work_dir = f"work_dirs/{plan.name}"
        return config

    def outputs(self, plan: Plan) -> Mapping[str, Path]:
        folder = self._dated_folder(plan)
        return {
            "checkpoints": self.run_folders(plan)[0],
            "log": folder / f"{folder.name}.log",
            "TensorBoard events": folder / "vis_data",
        }

    def run_folders(self, plan: Plan) -> list[Path]:
        return [plan.folder / "work_dirs" / plan.name]

    def network(self, plan: Plan) -> Callable[[Tensor], Tensor]:
        config = self._config(plan)
        from mmagic.registry import MODELS

        path = self.run_folders(plan)[0] / f"iter_{plan.steps}.pth"
        allow_own_checkpoints()
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        network: torch.nn.Module = MODELS.build(config.model.generator)
        prefix = "generator."
        network.load_state_dict(
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        )
        return network.eval()

    def _dated_folder(self, plan: Plan) -> Path:
        folders = sorted(path.parent for path in self.run_folders(plan)[0].glob("*/vis_data"))
        if not folders:
            raise DataError(f"Expected MMagic's log in {self.run_folders(plan)[0]}, but there is none. Try --fresh.")
        return folders[-1]
