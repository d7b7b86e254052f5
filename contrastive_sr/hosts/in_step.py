"""Methods inside a trainer's own step, which they enter through its pixel loss; imports no host.

A trainer's step knows what we do not: targets of its own, further losses, GANs, accumulation, clipping, autocast. So it
stays as it is. Its pixel loss is wrapped; called in a training step with the SR images and the target, the methods' own
parts learn, and the methods' weighted terms are added to its value. :class:`InHostStep` is mixed into a trainer's model
and does that around its step; an adapter says where the trainer keeps its pixel loss, its log and its states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr._checks import check_flag, check_number, describe, describe_error
from contrastive_sr.config import unknown
from contrastive_sr.distributed import copy_from_first_rank, rank, unwrapped, world_size
from contrastive_sr.embeddings.tensor_file import load_plain
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.checkpoints import steps_to_host
from contrastive_sr.hosts.proven import save_whole
from contrastive_sr.hosts.warn import warnings_in_log
from contrastive_sr.methods import Methods, build_methods
from contrastive_sr.methods.layers import features_of, tapped
from contrastive_sr.samples import Batch

STATE_SUFFIX = ".contrastive"  # of the methods' state, beside the trainer's own of that step
_OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


class MethodsInStep:
    """Methods that take part in the steps of a trainer.

    ::

        in_step = MethodsInStep(methods, optimizer, warn=logger.warning)    # methods: attached to the SR network
        trainer.cri_pix = in_step.wrap(trainer.cri_pix)

        with in_step.step(trainer.net_g, lambda: {"lr": trainer.lq}):
            ...                                                             # the trainer's own step
        log(in_step.metrics)

    The methods' own parts learn once in each such step: where a trainer accumulates gradients over several batches,
    once a batch. They learn in float32, whatever the trainer's autocast says. Their learning rate follows the
    trainer's schedule.

    Attributes:
        methods: the methods, without the wrapper that synchronises gradients.
        optimizer: of the methods' own parts; None if there are none.
        metrics: what the methods have to log of the latest step.
        returned: what the pixel loss returned in it, with the methods' terms.
        parts: that in two: the pixel loss alone, and the terms.

    Args:
        methods: the methods, attached to the SR network.
        optimizer: of the methods' own parts, see :func:`methods_optimizer`.
        warn: takes a warning for the trainer's log.
        patience: so many steps may pass in a row without a call of the pixel loss, as a GAN's may in which its
            discriminator alone learns.
        learn: the step of the methods' own parts, for a trainer that has its own way to make one: called with a batch,
            it returns their losses. None: by ``optimizer``.
        loss_prefix: stands before the names of losses in ``metrics``.
        scaler: of gradients in mixed precision, where it is not the trainer's own: saved and loaded with the state.
    """

    def __init__(
        self,
        methods: Methods,
        optimizer: torch.optim.Optimizer | None,
        *,
        warn: Callable[[str], object],
        patience: int = 0,
        learn: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        loss_prefix: str = "l_",
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.methods, self.optimizer, self._scaler = methods, optimizer, scaler
        self.metrics: dict[str, Tensor] = {}
        self._learn = self._learn_by_optimizer if learn is None else learn
        self._learning: nn.Module = methods
        if optimizer is not None and world_size() > 1:
            self._learning = DistributedDataParallel(methods)
        elif learn is None:  # no wrapper does it: each rank of a trainer may draw other first weights
            copy_from_first_rank(methods)
        self._rates = [] if optimizer is None else [group["lr"] for group in optimizer.param_groups]
        self._warn, self._patience, self._missed, self._prefix = warn, patience, 0, loss_prefix
        self._turn: Callable[[], Batch] | None = None  # the batch, in a step whose pixel loss was not called yet
        self._outputs: Mapping[str, list[object]] = {}
        self.returned = torch.zeros(())
        self.parts = (self.returned, self.returned)

    def wrap(self, pixel_loss: nn.Module, outer_weight: float = 1.0) -> PixelLossWithMethods:
        """The pixel loss that gives the methods their turn.

        Args:
            pixel_loss: the trainer's.
            outer_weight: the trainer multiplies the loss by it; the methods' terms are divided by it.
        """
        return PixelLossWithMethods(pixel_loss, self, outer_weight)

    @contextmanager
    def step(
        self, net: nn.Module, batch: Callable[[], Batch], schedule: torch.optim.Optimizer | None = None
    ) -> Iterator[None]:
        """The methods take part in what is done in this block of code: one step of the trainer.

        Args:
            net: the SR network, wrapped for several processes or not; called once.
            batch: gives ``"lr"`` and what else the methods want; called when the SR images are there.
            schedule: the trainer's optimizer of the SR network, whose schedule the methods' optimizer follows.

        Raises:
            ConfigError: the pixel loss was not called in it, nor in the steps before.
            ContrastiveSRError: see :class:`~contrastive_sr.methods.Methods`.
        """
        self.metrics = {}
        self._follow(schedule)
        inputs = with_inputs(net, lambda: self.methods.network_inputs(unwrapped(net), batch()))
        with tapped(net, self.methods.layers) as self._outputs, inputs:
            self._turn, self._net = batch, net
            try:
                yield
            finally:
                missed, self._turn, self._outputs = self._turn is not None, None, {}
                self.returned = self.returned.detach()  # a step that was skipped would keep its graph
                self.parts = (self.parts[0].detach(), self.parts[1].detach())
        self._missed = self._missed + 1 if missed else 0
        if self._missed > self._patience:
            raise ConfigError(
                "The methods enter a training through its pixel loss, and the training step did not call it. Does this "
                "model have a pixel loss, under another name than the option file's? Then train with a model that "
                "calls it, or use the methods in a loop of your own."
            )

    @property
    def open(self) -> bool:
        """Whether this is a step whose pixel loss was not called yet."""
        return self._turn is not None

    def takes(self, sr: Tensor) -> bool:
        """Whether a call of the pixel loss is the one in which the methods have their turn."""
        return self._turn is not None and sr.requires_grad and torch.is_grad_enabled()

    def losses(self, pixel_loss: Callable[[Tensor], Tensor], sr: Tensor, hr: Tensor, outer_weight: float) -> Tensor:
        """The pixel loss and the methods' terms, after their own parts have learnt.

        Args:
            pixel_loss: of the SR images.
            sr: (B, 3, s h, s w) SR images, part of the network's graph.
            hr: the target.
            outer_weight: see :meth:`wrap`.
        """
        assert self._turn is not None
        features = features_of(self._outputs, sr.requires_grad)
        batch, self._turn = {**self._turn(), "hr": hr, "sr": sr, **features}, None
        batch = self.methods.run(self._net, batch)
        pixel = pixel_loss(sr)
        if not isinstance(pixel, Tensor):
            raise ConfigError(
                "The methods enter a training through its pixel loss: expected one that returns a scalar tensor, got a "
                f"{type(pixel).__name__}. Put an L1, Charbonnier or MSSIM loss first."
            )
        self.parts = (pixel, self._terms(batch, pixel * outer_weight) / outer_weight)
        self.returned = self.parts[0] + self.parts[1]
        return self.returned

    def warm_up_loss(self, net: nn.Module, batch: Batch, schedule: torch.optim.Optimizer | None = None) -> Tensor:
        """The loss of a step of the methods alone, after their own parts have learnt; see :attr:`Methods.warming_up`.

        Args:
            net: the SR network, wrapped for several processes or not.
            batch: ``"lr"``, ``"hr"`` and what else the methods want.
            schedule: as in :meth:`step`.
        """
        self.metrics = {}
        self._follow(schedule)
        return self._terms(self.methods.run(net, batch), None)

    def _terms(self, batch: dict[str, Tensor], pixel_loss: Tensor | None) -> Tensor:
        self._log(self._learn(batch))
        with warnings_in_log(self._warn):
            contrast = self.methods.sr_losses(batch, pixel_loss)
        self._log(contrast.metrics)
        return contrast.loss

    def entries(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What there is to log of a step, on its device: the trainer's own losses and the metrics.

        The pixel loss among them is without the methods' terms.
        """
        pixel = self.parts[0].detach()
        own = {name: pixel if loss is self.returned else loss for name, loss in losses.items()}
        return {**own, **self.metrics}

    def logged(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`entries` for a trainer that reads each of them at every step."""
        entries = self.entries(losses)
        # of several processes the trainer makes means first, on the device
        return entries if world_size() > 1 else in_one_copy(entries)

    def save(self, path: Path) -> None:
        """Write the state of methods and optimizer, in one move.

        Raises:
            NonFiniteError: it has a NaN or an infinity, which no resumed training would get rid of. Some trainers save
                when they stop at an error.
            SaveError: the disk does not take it.
        """
        own = None if self.optimizer is None else self.optimizer.state_dict()
        scaler = {} if self._scaler is None else {"scaler": self._scaler.state_dict()}
        save_whole({"methods": self.methods.state_dict(), "optimizer": own, **scaler}, path)

    def load(self, path: Path) -> None:
        """Go on from a state.

        Raises:
            ConfigError: there is none, it cannot be read, or it is one of other methods.
        """
        check_state(path)
        try:
            state = load_plain(path)
            methods, own = state["methods"], state["optimizer"]
        except Exception as error:  # a damaged file can fail in any way
            raise ConfigError(
                f"To resume, expected the state of the methods in {path}, got a file that cannot be read "
                f"({describe_error(error)}). Resume from an earlier state."
            ) from error
        try:
            if (own is None) != (self.optimizer is None):
                raise RuntimeError("one of the two has parts to train.")
            self.methods.load_state_dict(methods)
            if self.optimizer is not None:
                configured = [
                    {k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups
                ]
                self.optimizer.load_state_dict(own)
                for group, options in zip(self.optimizer.param_groups, configured, strict=True):
                    group |= options  # torch takes those of the state
            if self._scaler is not None and "scaler" in state:  # none was saved in another precision
                self._scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"To resume, expected the state of the methods {self.methods.names} as they are configured now, got "
                f"another in {path}: {str(error)[:400]} Resume with the options of that training. {_START_ANEW}"
            ) from error

    def _learn_by_optimizer(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(batch["hr"].device.type, enabled=False):
            losses: dict[str, Tensor] = self._learning(batch)
            if self.optimizer is not None and losses:
                self.optimizer.zero_grad()
                # not Tensor.backward(), which scales gradients where the trainer's step is in mixed precision
                torch.autograd.backward(torch.stack(list(losses.values())).sum())
                self.methods.drop_idle_gradients()
                self.optimizer.step()
                torch.clear_autocast_cache()  # it may hold these parameters as they were
        return losses

    def _log(self, metrics: Mapping[str, Tensor]) -> None:
        names = self.methods.loss_names
        self.metrics |= {
            f"{self._prefix}{name}" if name in names else name: value.detach() for name, value in metrics.items()
        }

    def _follow(self, schedule: torch.optim.Optimizer | None) -> None:
        """Give the methods' learning rate what the trainer's schedule has left of its own."""
        if self.optimizer is None or schedule is None:
            return
        first = schedule.param_groups[0]
        left = first["lr"] / first["initial_lr"] if first.get("initial_lr") else 1.0
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * left


def in_one_copy(values: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
    """Values of any device, their means, as scalars on the CPU: read one by one, each would stall a GPU.

    A model of the user's own may log plain numbers beside tensors.
    """
    means = {name: x.detach().mean() for name, x in values.items() if isinstance(x, Tensor)}
    copied = dict(zip(means, torch.stack(list(means.values())).cpu().unbind(), strict=True)) if means else {}
    return {name: copied[name] if name in copied else torch.tensor(float(x)) for name, x in values.items()}


_START_ANEW = (
    "To start another training from the network alone, name its file as the pretrained network and resume nothing."
)


def check_state(path: Path) -> None:
    """Refuse to resume without the state of the methods.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(
            f"To resume, expected the state of the methods in {path}, got no such file. Was this training begun "
            f"without them? {_START_ANEW}"
        )


class InHostStep:
    """Mix-in for the model of a trainer whose model owns the step.

    Before a class with ``net_g``, ``lq``, ``optimizer_g``, ``optimize_parameters``, ``save_training_state`` and
    ``resume_training`` as in BasicSR, from which most trainers descend. An adapter makes ``in_step`` and wraps the
    pixel loss when the model has made it, puts the metrics into the log, and names the folder of the training states.
    """

    in_step: MethodsInStep
    net_g: nn.Module
    lq: Tensor
    optimizer_g: torch.optim.Optimizer

    @property
    def methods(self) -> Methods:
        """The methods, without the wrapper that synchronises gradients."""
        return self.in_step.methods

    def states_folder(self) -> Path:
        """Where the trainer keeps its training states."""
        raise NotImplementedError

    def resumed_state(self) -> str | Path | None:
        """The training state that the options tell to resume from, if they name a file."""
        raise NotImplementedError

    def step_batch(self) -> Batch:
        """``"lr"`` and what else the methods want of a step's batch, when the SR images are there."""
        return {"lr": self.lq}

    def optimize_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own step, in which the methods take part."""
        with self.in_step.step(self.net_g, self.step_batch, self.optimizer_g):
            return super().optimize_parameters(*args, **kwargs)  # type: ignore[misc]

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """The trainer's state, and before it that of the methods beside it: where it is, all is."""
        if rank() == 0 and current_iter != -1:
            self.methods.check_finite()
            self.in_step.save(self.states_folder() / f"{int(current_iter)}{STATE_SUFFIX}")
        super().save_training_state(epoch, current_iter)  # type: ignore[misc]

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """Go on from the trainer's state and that of the methods."""
        state = Path(self.resumed_state() or self.states_folder() / f"{int(resume_state['iter'])}.state")
        self.in_step.load(state.with_suffix(STATE_SUFFIX))
        steps_to_host(resume_state.get("optimizers", ()))
        super().resume_training(resume_state)  # type: ignore[misc]


class PixelLossWithMethods(nn.Module):
    """A trainer's pixel loss; in a training step its value is that loss plus the methods' weighted terms.

    Attributes of the loss, such as its weight, can be read and set as if it was not wrapped.
    """

    _own = ("pixel_loss", "in_step", "outer_weight", "training")

    def __init__(self, pixel_loss: nn.Module, in_step: MethodsInStep, outer_weight: float) -> None:
        super().__init__()
        self.pixel_loss, self.in_step, self.outer_weight = pixel_loss, in_step, outer_weight

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("pixel_loss"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._own or name.startswith("_") or hasattr(type(self), name):  # the last: `forward`, replaced
            super().__setattr__(name, value)
        else:
            setattr(self.pixel_loss, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the trainer's loss takes and returns."""
        first_two = list(inspect.signature(self.pixel_loss.forward).parameters)[:2]
        if len(first_two) == 2:  # which trainers may give by name
            args += tuple(kwargs.pop(name) for name in first_two[len(args) :] if name in kwargs)
        sr, hr, args = args[0], args[1], args[2:]
        if not self.in_step.takes(sr):
            return self.pixel_loss(sr, hr, *args, **kwargs)
        if sr.dtype in (torch.float16, torch.bfloat16):
            sr = sr.float()  # as the methods will have it: their share is measured at this tensor
        if hr.is_inference():
            hr = hr.clone()  # no graph can hold it otherwise
        return self.in_step.losses(lambda x: self.pixel_loss(x, hr, *args, **kwargs), sr, hr, self.outer_weight)


@contextmanager
def with_inputs(net: nn.Module, inputs: Callable[[], Mapping[str, Tensor]]) -> Iterator[None]:
    """Call a network with more than the trainer gives it, in a block of code.

    Args:
        net: the network, wrapped for several processes or not.
        inputs: gives what to add, by keyword, when the network is called.
    """
    handle = net.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, **inputs()}), with_kwargs=True
    )
    try:
        yield
    finally:
        handle.remove()


def attached(configs: Any, net: nn.Module, images: int, trainer: str, skip_nonfinite: int = 0) -> Methods:
    """The ``methods:`` of an option file, attached to the network of a trainer that has its step for itself.

    Args:
        configs: see :func:`contrastive_sr.methods.build_methods`.
        net: the SR network, wrapped for several processes or not.
        images: of a batch, over all processes.
        trainer: its name, for messages.
        skip_nonfinite: see :class:`~contrastive_sr.methods.Methods`.

    Raises:
        ConfigError: methods that are unknown, do not fit the network, or have a warm-up.
        DataError: methods that need more than pairs of LR and HR images.
    """
    # What the trainer draws afterwards shall not depend on first weights. Those are drawn on the CPU, also where a
    # trainer has made the GPU torch's default device.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        methods = build_methods(configs, skip_nonfinite=skip_nonfinite)
        methods.attach(net)
    if warm := [method.name for method in methods if method.warmup_steps]:
        raise ConfigError(
            f"methods: {', '.join(warm)}: expected no warm-up, in which the losses of {trainer} would have to rest. "
            "Set warmup_steps to 0, begin with the network of an earlier training, or train in BasicSR or MMagic."
        )
    methods.check_data({"lr", "hr"}, images)
    return methods


def methods_optimizer(methods: Methods, options: object, key: str) -> torch.optim.Optimizer | None:
    """The optimizer of the methods' own parts; None if they train none.

    Args:
        methods: the methods, attached, on their device.
        options: e.g. ``{"type": "Adam", "lr": 1e-4}``.
        key: where the options stand, for messages.

    Raises:
        ConfigError: there are none, and the methods need them; or they cannot be used.
    """
    if not methods.trainable:
        return None
    if options is None:
        raise ConfigError(
            f"{key}: expected options for the parts that the methods train, e.g. `{{type: Adam, lr: !!float 1e-4, "
            "betas: [0.9, 0.999]}`, got none."
        )
    arguments = check_optimizer(options, key, tuple(_OPTIMIZERS))
    parameters = [p for p in methods.parameters() if p.requires_grad]
    return _OPTIMIZERS[arguments.pop("type")](parameters, **arguments)


def check_optimizer(options: object, key: str, types: tuple[str, ...]) -> dict[str, Any]:
    """An optimizer's options as ``{"type": "Adam", "lr": ..., ...}``.

    Args:
        options: the options.
        key: where they stand, for messages.
        types: accepted types, of those that this function knows.

    Raises:
        ConfigError: another type, an unknown key, or a value that the optimizer does not take.
    """
    if not isinstance(options, Mapping) or options.get("type") not in types:
        raise ConfigError(f"{key}: expected {{type: {' or '.join(types)}, lr: ...}}, got {describe(options)}.")
    kind = options["type"]
    defaults = {name: of.default for name, of in inspect.signature(_OPTIMIZERS[kind]).parameters.items()}
    accepted = [name for name in defaults if name != "params"]
    check_number(options.get("lr"), f"{key}: lr", above=0)
    for name, value in options.items():
        if name not in ("type", *accepted):
            raise ConfigError(f"{key}: {kind} {unknown('key', name, accepted)}")
        where = f"{key}: {name}"
        if name == "betas":
            if not isinstance(value, (list, tuple)) or len(value) != 2:
                raise ConfigError(f"{where}: expected two numbers such as [0.9, 0.999], got {describe(value)}.")
            for beta in value:
                check_number(beta, where, at_least=0)
        elif name in ("eps", "weight_decay"):
            check_number(value, where, at_least=0)
        elif isinstance(defaults.get(name), bool) or (defaults.get(name, 0) is None and value is not None):
            check_flag(value, where)
    of_device = ("fused", "foreach", "capturable")  # on a CPU some of them are refused
    arguments = {name: value for name, value in options.items() if name not in ("type", *of_device)}
    try:
        _OPTIMIZERS[kind]([nn.Parameter(torch.zeros(1))], **arguments)
    except (TypeError, ValueError, RuntimeError) as error:  # it knows which values go together
        raise ConfigError(f"{key}: {kind} does not take these options: {error}") from error
    return dict(options)
