"""Training with methods, to be mixed into the SR models of BasicSR and of its forks; imports no host."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.data.files import atomic_write
from contrastive_sr.distributed import rank, unwrapped
from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation.pattern import excess_warning
from contrastive_sr.hosts.basicsr.attach import attached_methods, methods_optimizer
from contrastive_sr.hosts.basicsr.pattern import calculate_pattern
from contrastive_sr.hosts.kernels import kernel_size, super_resolve
from contrastive_sr.hosts.warn import warnings_in_log
from contrastive_sr.methods import Methods

if TYPE_CHECKING:
    from basicsr.models.sr_model import SRModel as Host
else:
    Host = object  # the host's model comes after this class in the bases of a model


class WithMethods(Host):
    """What both models share: the ``methods:`` of the option file, their optimizer, state and files.

    A step: with ``degradation:`` LR images are made from the HR crops, on the device; the SR network runs once; the
    methods' own parts learn from its detached output (``optim_methods``); then the host's losses and the methods' terms
    train the SR network.

    Attributes:
        networks: the host's registry of networks.
        logger: the host's log.
    """

    networks: Any
    logger: logging.Logger

    opt: dict[str, Any]
    lq: Tensor
    pixel_key = "l_pix"

    def init_training_settings(self) -> None:
        methods, self.degradation = attached_methods(self.opt, self.net_g, self.networks)
        self.methods: nn.Module = methods.to(self.device)
        if self.opt["dist"] and methods.trainable:
            self.methods = self.model_to_device(methods)
        super().init_training_settings()

    @property
    def bare_methods(self) -> Methods:
        """The methods, without the wrapper that synchronises gradients."""
        methods: Methods = unwrapped(self.methods)
        return methods

    def model_to_device(self, net: nn.Module) -> nn.Module:
        if self.opt["dist"] and self.device.type == "cpu":
            return DistributedDataParallel(net.to(self.device))  # BasicSR's own wrapper asks for a GPU
        return super().model_to_device(net)

    def setup_optimizers(self) -> None:
        super().setup_optimizers()
        self.optimizer_methods: torch.optim.Optimizer | None = None
        arguments = methods_optimizer(self.opt, self.bare_methods)
        if arguments is None:
            if self.opt["train"].get("optim_methods"):
                self.logger.info("No method trains parts of its own: optim_methods is not used.")
            return
        parameters = [p for p in self.methods.parameters() if p.requires_grad]
        self.optimizer_methods = self.get_optimizer(arguments.pop("type"), parameters, **arguments)
        self.optimizers.append(self.optimizer_methods)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a pair, or HR crops alone, whose LR images :meth:`run` makes."""
        if "lq" in data:
            super().feed_data(data)
        else:
            self.gt = data["gt"].to(self.device)
        self.gt_key = data["gt_key"].to(self.device) if "gt_key" in data else None
        self.lq_path: list[str] = data.get("lq_path", [])

    def test(self) -> None:
        """As in the host; a network that reads kernels gets those of the images."""
        if kernel_size(self.net_g) is None:
            super().test()
            return
        net: nn.Module = getattr(self, "net_g_ema", None) or self.net_g
        net.eval()
        with torch.no_grad():
            self.output = super_resolve(net, self.lq, self.lq_path)
        self.net_g.train()

    def run_network(self, current_iter: int) -> dict[str, Tensor]:
        """One pass of the SR network."""
        if self.degradation is None:
            batch = {"lr": self.lq, "hr": self.gt}
        else:
            batch = self.degradation.batch(self.gt, self.gt_key, current_iter)
            self.lq = batch["lr"]
        return self.bare_methods.run(self.net_g, batch)

    def auxiliary_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The methods' own step, and its losses for the log."""
        losses: dict[str, Tensor] = self.methods(batch)
        if self.optimizer_methods is not None and losses:
            self.optimizer_methods.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            self.bare_methods.drop_idle_gradients()
            self.optimizer_methods.step()
        return {f"l_{name}": loss.detach() for name, loss in losses.items()}

    def sr_step(self, batch: dict[str, Tensor], losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The SR network's step on the host's losses and the methods' terms, and all of them for the log."""
        with warnings_in_log(self.logger.warning):
            contrast = self.bare_methods.sr_losses(batch, losses.get(self.pixel_key))
        self.optimizer_g.zero_grad()
        torch.stack([contrast.loss, *losses.values()]).sum().backward()
        self.optimizer_g.step()
        names = self.bare_methods.loss_names
        ours = {f"l_{name}" if name in names else name: value for name, value in contrast.metrics.items()}
        return {name: value.detach() for name, value in {**losses, **ours}.items()}

    def image_losses(self, sr: Tensor) -> dict[str, Tensor]:
        """The host's pixel, perceptual and style losses, under the host's names."""
        prefix = self.pixel_key.removesuffix("pix")
        losses: dict[str, Tensor | None] = {}
        if self.cri_pix:
            losses[self.pixel_key] = self.cri_pix(sr, self.gt)
        if self.cri_perceptual:
            losses[f"{prefix}percep"], losses[f"{prefix}style"] = self.cri_perceptual(sr, self.gt)
        return {name: loss for name, loss in losses.items() if loss is not None}

    def finish_step(self, logs: dict[str, Tensor]) -> None:
        """Average the log over the ranks, and move the average network."""
        self.log_dict = self.reduce_loss_dict(logs)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def model_ema(self, decay: float = 0.999) -> None:
        """Also take over the buffers: BasicSR leaves BatchNorm's statistics of the average network as they began."""
        super().model_ema(decay)
        for averaged, live in zip(self.net_g_ema.buffers(), self.get_bare_model(self.net_g).buffers(), strict=True):
            averaged.copy_(live)

    def _log_validation_metric_values(self, current_iter: int, dataset_name: str, tb_logger: Any) -> None:
        """As in the host; the means over a data set tell of periodic dots."""
        super()._log_validation_metric_values(current_iter, dataset_name, tb_logger)
        for name, options in self.opt["val"]["metrics"].items():
            if options["type"] == calculate_pattern.__name__:
                excess = self.metric_results[name]
                if warning := excess_warning(f"Validation {dataset_name}, {name}", excess, options["period"]):
                    self.logger.warning(warning)

    def save(self, epoch: int, current_iter: int) -> None:
        self.bare_methods.check_finite()
        # The training state comes last and in one move, so that it exists only with all its networks.
        for label, part in self.bare_methods.trained_parts().items():
            self.save_network(part, label, current_iter)
        super().save(epoch, current_iter)

    def save_network(self, *args: Any, **kwargs: Any) -> None:
        """As in the host, which writes in place, but in one move: a run that is killed leaves no half network."""
        if rank() != 0:
            return
        models = Path(self.opt["path"]["models"])
        unfinished = models / "unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        self.opt["path"]["models"] = str(unfinished)
        try:
            super().save_network(*args, **kwargs)
        finally:
            self.opt["path"]["models"] = str(models)
        for file in unfinished.iterdir():
            os.replace(file, models / file.name)
        unfinished.rmdir()

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        if rank() != 0 or current_iter == -1:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "methods": self.bare_methods.state_dict(),
        }
        path = Path(self.opt["path"]["training_states"]) / f"{current_iter}.state"
        with atomic_write(path) as unfinished:
            torch.save(state, unfinished)

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        names = self.bare_methods.names
        if "methods" not in resume_state or len(resume_state["optimizers"]) != len(self.optimizers):
            raise ConfigError(
                f"resume_state: expected the state of a training with the methods {names} and "
                f"{len(self.optimizers)} optimizers, got one with {len(resume_state['optimizers'])} optimizers"
                f"{'' if 'methods' in resume_state else ' and no methods'}. To go on from a network that was trained "
                "otherwise, leave resume_state empty and name its file as pretrain_network_g."
            )
        try:
            self.bare_methods.load_state_dict(resume_state["methods"])
        except RuntimeError as error:
            raise ConfigError(
                f"resume_state: its methods do not fit {names} as the option file configures them: {str(error)[:400]} "
                "Resume with the option file of that training; to start another from its network, leave resume_state "
                "empty and name the network's file as pretrain_network_g."
            ) from error
        super().resume_training(resume_state)


class PixelTraining(WithMethods):
    """A step of the host's ``SRModel``, with methods."""

    def optimize_parameters(self, current_iter: int) -> None:
        batch = self.run_network(current_iter)
        logs = self.auxiliary_step(batch)
        losses = {} if self.bare_methods.warming_up else self.image_losses(batch["sr"])
        logs.update(self.sr_step(batch, losses))
        self.finish_step(logs)


class GANTraining(WithMethods):
    """A step of the host's ``ESRGANModel``, with methods."""

    pixel_key = "l_g_pix"

    def optimize_parameters(self, current_iter: int) -> None:
        batch = self.run_network(current_iter)
        logs = self.auxiliary_step(batch)
        if self.bare_methods.warming_up:
            logs.update(self.sr_step(batch, {}))
            self.finish_step(logs)
            return
        if current_iter % self.net_d_iters == 0 and current_iter > self.net_d_init_iters:
            self.net_d.requires_grad_(False)
            losses = self.image_losses(batch["sr"])
            losses["l_g_gan"] = self.generator_loss(batch["sr"])
            logs.update(self.sr_step(batch, losses))
        self.net_d.requires_grad_(True)
        logs.update(self.train_discriminator(batch["sr"].detach()))
        self.finish_step(logs)

    def generator_loss(self, sr: Tensor) -> Tensor:
        """The relativistic average loss: SR should look more real than the mean HR image, and HR less."""
        real, fake = self.net_d(self.gt).detach(), self.net_d(sr)
        real_loss: Tensor = self.cri_gan(real - fake.mean(), False, is_disc=False)
        fake_loss: Tensor = self.cri_gan(fake - real.mean(), True, is_disc=False)
        return (real_loss + fake_loss) / 2

    def train_discriminator(self, sr: Tensor) -> dict[str, Tensor]:
        """The discriminator's step, real and fake images in backward passes of their own, and its log."""
        self.optimizer_d.zero_grad()
        with torch.no_grad():
            reference = self.net_d(sr).mean()
        real = self.net_d(self.gt)
        real_loss = self.cri_gan(real - reference, True, is_disc=True) / 2
        real_loss.backward()
        fake = self.net_d(sr)
        fake_loss = self.cri_gan(fake - real.detach().mean(), False, is_disc=True) / 2
        fake_loss.backward()
        self.optimizer_d.step()
        logs = {"l_d_real": real_loss, "l_d_fake": fake_loss, "out_d_real": real.mean(), "out_d_fake": fake.mean()}
        return {name: value.detach() for name, value in logs.items()}
