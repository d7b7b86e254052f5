"""Training with methods, to be mixed into any model of BasicSR and of what is built on it; imports no host."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.distributed import sum_over_ranks, unwrapped, world_size
from contrastive_sr.embeddings.weights import read_sections
from contrastive_sr.errors import ConfigError
from contrastive_sr.evaluation.jaggedness import jaggedness_warning
from contrastive_sr.evaluation.padding import Sizes, any_size, needed_sizes
from contrastive_sr.evaluation.pattern import excess_warning
from contrastive_sr.hosts.basicsr.amp import mixed_precision
from contrastive_sr.hosts.basicsr.attach import METHODS_OPTIMIZER, attached_methods
from contrastive_sr.hosts.basicsr.pattern import calculate_jaggedness, calculate_pattern
from contrastive_sr.hosts.basicsr.saving import ProvenSaves
from contrastive_sr.hosts.in_step import (
    InHostStep,
    MethodsInStep,
    PixelLossWithMethods,
    in_one_copy,
    methods_optimizer,
    with_inputs,
)
from contrastive_sr.hosts.kernels import kernel_size, true_kernels
from contrastive_sr.hosts.warn import not_watched
from contrastive_sr.networks import NETWORKS

if TYPE_CHECKING:
    from basicsr.models.sr_model import SRModel as Host
else:
    Host = object  # the host's model comes after this class in the bases of a model


class WithMethods(ProvenSaves, InHostStep, Host):
    """The ``methods:`` of an option file, in the step of the model that this class is mixed into.

    They enter by the model's pixel loss, see :class:`~contrastive_sr.hosts.in_step.MethodsInStep`; step, validation,
    targets and further losses stay the model's own. With ``degradation:``, LR images are made from the HR crops, on the
    device, before the step. While methods warm up, they alone train the SR network, and the model's losses rest.

    Attributes:
        networks: the host's registry of networks.
        logger: the host's log.
    """

    networks: Any
    logger: logging.Logger

    opt: dict[str, Any]
    lq: Tensor
    cri_pix: nn.Module | None
    log_dict: dict[str, Tensor]
    _sizes: Sizes | None
    _tried = False
    _extra: Mapping[str, Tensor]

    def init_training_settings(self) -> None:
        # Embeddings draw their first weights; what the model draws afterwards shall not depend on that.
        with torch.random.fork_rng(devices=[]):
            methods, self.degradation = attached_methods(self.opt, self.net_g, self.networks)
        if self.degradation is not None:
            self._check_degradable()
        self.amp = mixed_precision(self.opt["train"].get("amp"), self.device)
        self.in_step = MethodsInStep(
            methods.to(self.device),
            methods_optimizer(methods, self.opt["train"].get("optim_methods"), METHODS_OPTIMIZER),
            warn=self.logger.warning,
            # a GAN's discriminator may learn alone at first, and in between
            patience=self.opt["train"].get("net_d_init_iters", 0) + self.opt["train"].get("net_d_iters", 1) - 1,
            scaler=None if self.amp is None else self.amp.scaler,
        )
        if self.in_step.optimizer is None and self.opt["train"].get("optim_methods"):
            self.logger.info("No method trains parts of its own: optim_methods is not used.")
        if self.amp is not None:
            self.logger.info(f"Mixed precision: networks in {str(self.amp.dtype).removeprefix('torch.')}.")
        self._extra = {}
        super().init_training_settings()
        pixel_loss = getattr(self, "cri_pix", None)
        if pixel_loss is None:
            raise ConfigError(
                f"train: expected `pixel_opt`, because methods enter the step of {self._host_name} by its pixel loss, "
                "got none. Try `pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}`."
            )
        self.cri_pix = self.in_step.wrap(pixel_loss)
        if methods.warming_up:
            self.logger.info(
                f"In the first {max(m.warmup_steps for m in methods)} steps methods warm up: they alone train the SR "
                f"network, and the losses of {self._host_name} rest."
            )
        if len(methods):
            self._say_what_is_not_watched()

    def _say_what_is_not_watched(self) -> None:
        measured = {options["type"] for options in ((self.opt.get("val") or {}).get("metrics") or {}).values()}
        pattern, jaggedness, scale = calculate_pattern.__name__, calculate_jaggedness.__name__, self.opt["scale"]
        missing = {
            what: line
            for metric, what, line in (
                (pattern, "periodic dots", f"pattern: {{type: {pattern}, period: {max(2, scale)}, better: lower}}"),
                (jaggedness, "jagged edges", f"jaggedness: {{type: {jaggedness}, scale: {scale}, better: lower}}"),
            )
            if metric not in measured
        }
        if measured and pattern not in measured:
            self.logger.info(not_watched(missing, "`val: metrics:`"))

    @property
    def _host_name(self) -> str:
        return type(self).__name__.removeprefix("Contrastive")

    def _check_degradable(self) -> None:
        """Refuse ``degradation:`` where the model makes its LR images itself."""
        makes = next(cls for cls in type(self).__mro__ if cls is not WithMethods and "feed_data" in cls.__dict__)
        if makes.__name__ != "SRModel":
            raise ConfigError(
                f"`degradation:` makes the LR images, but {makes.__name__} has its own way to get them (feed_data). "
                "Take `degradation:` out, or train with ContrastiveSRModel."
            )

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """As in the host, where a file that is a plain state dict, as authors release them, needs no ``param_key``."""
        held = read_sections(load_path)
        if "" in held:
            param_key = None
        elif param_key not in held:  # it is that of the first file, and this one is resumed, or the other way round
            others = ("params", self.opt["path"].get("param_key_g"))
            param_key = next((key for key in others if key in held), param_key)
        super().load_network(net, load_path, strict, param_key)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        if self.opt["dist"] and self.device.type == "cpu":
            return DistributedDataParallel(net.to(self.device))  # BasicSR's own wrapper asks for a GPU
        return super().model_to_device(net)

    def feed_data(self, data: dict[str, Any]) -> None:
        """As in the host; or HR crops alone, whose LR images the step makes."""
        if getattr(self, "degradation", None) is None or "lq" in data:
            super().feed_data(data)
        else:
            self.gt = data["gt"].to(self.device)
        self.gt_key = data["gt_key"].to(self.device) if "gt_key" in data else None
        self.lq_path: list[str] = data.get("lq_path", [])

    def test(self) -> None:
        """As in the host; a network that reads kernels gets those of the images, and one that takes images of some
        sizes alone gets them padded.

        Without DistributedDataParallel: the host validates on one process, and the wrapper would wait for the others to
        take over BatchNorm's statistics.
        """
        wrapped, self.net_g = self.net_g, self.get_bare_model(self.net_g)
        try:
            self._test()
        finally:
            self.net_g = wrapped

    def _test(self) -> None:
        size = kernel_size(self.net_g)
        kernels = {} if size is None else {"kernel": true_kernels(self.lq_path, size).to(self.lq)}
        net, scale = getattr(self, "net_g_ema", None) or self.net_g, self.opt["scale"]
        if not self._tried:
            training = net.training
            bare = unwrapped(net.eval())
            self._sizes, self._tried = needed_sizes(partial(bare, **kernels), self.lq, scale), True
            net.train(training)
        with any_size(net, self._sizes, scale), with_inputs(net, lambda: kernels):
            super().test()

    def optimize_parameters(self, current_iter: int, *args: Any, **kwargs: Any) -> None:
        """The model's own step, in which the methods take part; while they warm up, a step of theirs alone."""
        if self.degradation is not None:
            made = self.degradation.batch(self.gt, self.gt_key, current_iter)
            self.lq, self._extra = made["lr"], made
        with self._precision():
            if self.methods.warming_up:
                self._warm_up()
            else:
                super().optimize_parameters(current_iter, *args, **kwargs)

    def _warm_up(self) -> None:
        batch = {**self.step_batch(), "hr": self.gt}
        loss = self.in_step.warm_up_loss(self.net_g, batch, self.optimizer_g)
        self.optimizer_g.zero_grad()
        loss.backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict({})
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def _precision(self) -> AbstractContextManager[None]:
        """That of a step; validation stays in float32."""
        if self.amp is None:
            return nullcontext()
        vgg = getattr(getattr(self, "cri_perceptual", None), "vgg", None)
        networks = (self.net_g, getattr(self, "net_d", None), vgg, self.cri_pix)  # the last: the methods' terms
        assert isinstance(self.cri_pix, PixelLossWithMethods)
        losses = [self.cri_pix.pixel_loss]
        return self.amp.step([part for part in networks if part is not None], self.optimizers, losses)

    def step_batch(self) -> dict[str, Tensor]:
        return {**self._extra, "lr": self.lq}

    def reduce_loss_dict(self, loss_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """As in the host, with what the methods log; but on the device, where reading at each step would stall it."""
        entries = self.in_step.entries(loss_dict)
        values = torch.stack([x.detach().mean() for x in entries.values()]) if entries else torch.zeros(0)
        return dict(zip(entries, (sum_over_ranks(values) / world_size()).unbind(), strict=True))

    def get_current_log(self) -> dict[str, float]:
        """As in the host, which calls it when it prints: now the numbers are read."""
        return {name: value.item() for name, value in in_one_copy(self.log_dict).items()}

    def model_ema(self, decay: float = 0.999) -> None:
        """As in the host, which leaves BatchNorm's statistics of the average as they began; our networks have some."""
        super().model_ema(decay)
        if self.opt["network_g"]["type"] in NETWORKS:
            for averaged, live in zip(self.net_g_ema.buffers(), self.get_bare_model(self.net_g).buffers(), strict=True):
                averaged.copy_(live)

    def _log_validation_metric_values(self, current_iter: int, dataset_name: str, tb_logger: Any) -> None:
        """As in the host; the means over a data set tell of periodic dots and jagged edges."""
        super()._log_validation_metric_values(current_iter, dataset_name, tb_logger)
        for name, options in self.opt["val"]["metrics"].items():
            what, excess, warning = f"Validation {dataset_name}, {name}", self.metric_results[name], None
            if options["type"] == calculate_pattern.__name__:
                warning = excess_warning(what, excess, options["period"])
            elif options["type"] == calculate_jaggedness.__name__:
                warning = jaggedness_warning(what, excess)
            if warning:
                self.logger.warning(warning)

    def save(self, epoch: int, current_iter: int) -> None:
        self.methods.check_finite()
        # The training state comes last, so that it exists only with all that belongs to it.
        for label, part in self.methods.trained_parts().items():
            self.save_network(part, label, current_iter)
        super().save(epoch, current_iter)

    def states_folder(self) -> Path:
        return Path(self.opt["path"]["training_states"])

    def resumed_state(self) -> str | None:
        state: str | None = self.opt["path"].get("resume_state")
        return state

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        if len(resume_state["optimizers"]) != len(self.optimizers):
            raise ConfigError(
                f"resume_state: expected the state of a training with {len(self.optimizers)} optimizers, as "
                f"{self._host_name} has, got one with {len(resume_state['optimizers'])}. Resume with the option file "
                "of that training; to go on from its network alone, leave resume_state empty and name its file as "
                "pretrain_network_g."
            )
        super().resume_training(resume_state)
