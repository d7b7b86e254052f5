"""The engine: drives methods in a training loop, whichever they are and however many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_shape, describe
from contrastive_sr._random import seed_of
from contrastive_sr.config import unknown
from contrastive_sr.distributed import average_statistics_over_ranks, rank, unwrapped, world_size
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.losses import Contrast
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.layers import DRY_RUN_SIZE, dry_run, feature_key, run_module, super_resolve
from contrastive_sr.methods.weighting import TermWeight, gradient_square
from contrastive_sr.samples import Batch


class StepCounter(nn.Module):
    """Counts SR steps in the saved state, read without waiting for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self._value: int | None = None

    @property
    def value(self) -> int:
        """Steps done so far."""
        if self._value is None:
            self._value = int(self.count.item())
        return self._value

    def advance(self) -> None:
        """Count one more step."""
        self._value = self.value + 1
        self.count.fill_(self._value)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._value = None


class Methods(nn.Module):
    """The methods of a training, with the calls of a step and all of their state.

    ::

        methods = Methods([PCL(loss_share=0.05)])
        methods.attach(net)                               # once, before optimizers are made

        batch = methods.run(net, {"lr": lr, "hr": hr})    # adds batch["sr"]
        auxiliary = methods.auxiliary_losses(batch)       # to train the methods' own parts, parameters()
        contrast = methods.sr_losses(batch, pixel_loss)   # contrast.loss is added to the SR network's losses

    Random draws depend on a method's seed and name, the step and the process alone; so ``state_dict()`` is all that a
    resumed run needs to continue bit for bit. ``methods["pcl"]`` is the method of that name.

    Args:
        methods: the methods; their names must differ. With none, the network trains on the host's losses alone.

    Raises:
        ConfigError: no methods but something else, two of one name, or a name that this class needs itself.

    Example:
        >>> from contrastive_sr.methods import PCL
        >>> net, methods = nn.Upsample(scale_factor=4), Methods([PCL()])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['pcl_discriminator']
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        super().__init__()
        if not isinstance(methods, Sequence) or not all(isinstance(method, Method) for method in methods):
            raise ConfigError(f"methods: expected a list of methods such as [PCL()], got {describe(methods)}.")
        names = [method.name for method in methods]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"methods: expected methods with different `name`, got {names}. Give each its own, e.g. `name: nce_2`."
            )
        self.step = StepCounter()
        self._attached = self._checked = False
        self._auxiliary_log: dict[str, dict[str, Tensor]] = {}  # by method
        self._latest: dict[str, dict[str, Tensor]] = {}  # what lazy methods logged when they last took part
        self._auxiliary_names: set[str] = set()
        self._idle: list[nn.Parameter] = []
        self._depends: set[str] = set()  # terms whose gradient was seen to reach their points
        self._watched: list[tuple[str, Tensor, torch.cuda.Event]] = []
        for method in methods:
            if hasattr(self, method.name):
                raise ConfigError(f"methods: {method.name!r} cannot be a method's `name`. Try `my_{method.name}`.")
            if method.weights and type(method).terms is Method.terms:
                raise ConfigError(
                    f"{method.name}: expected {type(method).__name__} to have terms(batch, step) for its weights "
                    f"{list(method.weights)}, got none. Is its name misspelt?"
                )
            self.add_module(method.name, method)

    def __getitem__(self, name: str) -> Method:
        return {method.name: method for method in self}[name]

    def __iter__(self) -> Iterator[Method]:
        return iter(child for child in self.children() if isinstance(child, Method))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def names(self) -> list[str]:
        """Names of the methods, in the order of the config."""
        return [method.name for method in self]

    @property
    def wants(self) -> tuple[str, ...]:
        """What the methods read of a batch beside ``"lr"`` and ``"hr"``; see :class:`Method`."""
        return tuple(dict.fromkeys(name for method in self for name in method.wants))

    @property
    def trainable(self) -> bool:
        """Whether any part of any method needs an optimizer."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def warming_up(self) -> bool:
        """Whether this is a step in which the host's own losses rest; a batch need not have an SR image then.

        Never in eval mode, in which methods are looked at and the whole network is run.
        """
        return self.training and any(self.step.value < method.warmup_steps for method in self)

    @property
    def loss_names(self) -> set[str]:
        """Which of what is logged are values of losses, seen so far: weighted terms, and auxiliary losses."""
        terms = {f"{method.name}_{key}" for method in self for key in method.weights}
        return terms | self._auxiliary_names

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the SR network's modules whose outputs are read in this step."""
        return self._layers(self._active())

    def trained_parts(self) -> dict[str, nn.Module]:
        """All methods' networks that are of use beyond this training; see :meth:`Method.trained_parts`."""
        return {label: part for method in self for label, part in method.trained_parts().items()}

    # ------------------------------------------------------------------------------------------- before the first step

    def attach(self, net: Callable[..., Tensor]) -> None:
        """Prepare all methods for the SR network: once, before optimizers are made from ``parameters()`` and DDP.

        Args:
            net: the SR network, wrapped for several processes or not.

        Raises:
            ConfigError: a network that a method cannot train or that lacks the layers it reads, or a second call.
        """
        if self._attached:
            raise ConfigError("attach() was called before; new parts of the methods would not be in the optimizer.")
        bare = unwrapped(net)
        for method in self:
            method.check_network(bare)
        dry = self._dry_run(bare)
        for method in self:
            method.build(bare, dry)
        self._attached = True

    def _dry_run(self, net: Any) -> dict[str, Tensor]:
        layers = self._layers(self)
        if not layers:
            return {}
        if not isinstance(net, nn.Module):
            raise ConfigError(f"layers: expected an nn.Module as SR network, got {describe(net)}.")
        like = next(net.parameters(), torch.empty(()))
        lr = like.new_zeros(1, 3, DRY_RUN_SIZE, DRY_RUN_SIZE)
        return {"lr": lr, **dry_run(net, lr, layers, self.network_inputs(net, {"lr": lr}))}

    def network_inputs(self, net: Any, batch: Batch) -> dict[str, Tensor]:
        """What the SR network is called with beside the LR images; see :meth:`Method.network_inputs`."""
        return {key: x for method in self for key, x in method.network_inputs(net, batch).items()}

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse training data that a method cannot use; see :meth:`Method.check_data`."""
        for method in self:
            method.check_data(names, images)

    def check_batch(self, batch: Batch) -> None:
        """Refuse a batch that cannot be trained on; :meth:`run` does it with the first one.

        Raises:
            DataError: missing images, wrong shapes, HR not a whole multiple of LR, values outside [0, 1], or what a
                method cannot use.
        """
        for key in ("lr", "hr"):
            if key not in batch:
                raise DataError(f"Expected a batch with 'lr' and 'hr', got {sorted(batch)}.")
            check_shape(batch[key], ("B", 3, "H", "W"), f"batch[{key!r}]")
            low, high = batch[key].min().item(), batch[key].max().item()
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # also true for NaN
                raise DataError(
                    f"Expected batch[{key!r}] in [0, 1], got values from {low:.4g} to {high:.4g}. "
                    "Divide images by 255, and leave out any mean or standard deviation in the data settings."
                )
        (height, width), (h, w) = batch["hr"].shape[-2:], batch["lr"].shape[-2:]
        scale = height // h
        if batch["hr"].shape[0] != batch["lr"].shape[0] or scale < 1 or (height, width) != (scale * h, scale * w):
            raise DataError(
                f"Expected HR images of a whole multiple of the LR size, one each, got LR {tuple(batch['lr'].shape)} "
                f"and HR {tuple(batch['hr'].shape)}. Check the pairs and the scale; the patch size must be a multiple "
                "of it."
            )
        for method in self:
            method.check_batch(batch)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if len(self) and not self._attached:
            raise ConfigError(
                "The parts of the methods that a state is for do not exist yet. Call attach(net) before "
                "load_state_dict()."
            )
        super()._load_from_state_dict(*args, **kwargs)

    # ------------------------------------------------------------------------------------------------- a training step

    def run(self, net: Callable[..., Tensor], batch: Batch) -> dict[str, Tensor]:
        """Super-resolve the batch, with one call of the network.

        Args:
            net: the SR network, called as ``sr = net(lr)``, wrapped for several processes or not.
            batch: ``"lr"`` (B, 3, h, w) and ``"hr"`` (B, 3, s h, s w), RGB in [0, 1]. If it has ``"sr"`` already,
                the network is not called again.

        Returns:
            The batch with ``"sr"`` (B, 3, s h, s w) in float32, and ``"features/<name>"`` of the methods' layers, all
            part of the network's graph. In the warm-up of a method with a ``warmup_module``, without ``"sr"``.

        Raises:
            ConfigError: :meth:`attach` was not called, or a layer that the network does not have.
            DataError: images of the wrong shape; in the first call also, values outside [0, 1].
            NonFiniteError: the SR images are not finite. On a GPU it is raised in the next step.
        """
        self.check_finite()
        self._check_attached()
        batch = dict(batch)
        if not self._checked:
            self.check_batch(batch)
        if self.training:
            for method in self:
                method.follow(unwrapped(net), self._step(method))
        layers = self._layers(self._active())
        modules = {method.warmup_module for method in self._active()} if self.warming_up else {None}
        if "sr" in batch:
            if missing := [name for name in layers if feature_key(name) not in batch]:
                raise DataError(
                    f"The batch has its 'sr' already, but not the features of {missing} from the same call of the "
                    "network. Run it without 'sr'."
                )
        elif None not in modules:
            for module in sorted(filter(None, modules)):
                inner = [layer for layer in layers if layer == module or layer.startswith(f"{module}.")]
                batch.update(run_module(unwrapped(net), module, batch["lr"], inner))
        else:
            batch.update(super_resolve(net, batch["lr"], layers, self.network_inputs(unwrapped(net), batch)))
        if "sr" in batch:
            sr = batch["sr"]
            # Losses are computed in float32: the gradient of a mean over pixels underflows in half precision.
            batch["sr"] = sr.float() if isinstance(sr, Tensor) and sr.dtype != torch.float64 else sr
            check_shape(batch["sr"], tuple(batch["hr"].shape), "the SR network's output")
            self._watch("mean of the SR network's output", batch["sr"].mean())
        self._checked = True
        return batch

    def auxiliary_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses that train the methods' own parts, computed on the detached batch.

        Args:
            batch: what :meth:`run` returned.

        Returns:
            Scalars by name, their sum to be minimised over ``parameters()``; empty if nothing trains.

        Raises:
            ConfigError: :meth:`attach` was not called, or a method returned something else or a loss that trains
                nothing.
            DataError: a batch of another kind.
            NonFiniteError: one of them is NaN or infinite. On a GPU it is raised in the next step.
        """
        self._check_ran(batch)
        losses: dict[str, Tensor] = {}
        self._auxiliary_log = {}
        active = self._active()
        batch = {key: x.detach() if isinstance(x, Tensor) else x for key, x in batch.items()}
        self._idle = []
        for method in self:
            contrasts = self._returned(method, "auxiliary", batch) if method in active else {}
            for key, contrast in contrasts.items():
                _check_trains(method, key, contrast)
                label = f"{method.name}_{key}"
                losses[label] = contrast.loss
                self._auxiliary_names.add(label)
                self._watch(label, contrast.loss)
                log = self._auxiliary_log.setdefault(method.name, {})
                log |= _named(method, contrast.metrics)
                if method.every > 1:  # its callers have no auxiliary loss to log at every step
                    log[label] = contrast.loss.detach()
            if not contrasts:
                self._idle += [p for p in method.parameters() if p.requires_grad]
        if losses and self._idle and world_size() > 1:  # DistributedDataParallel waits for every parameter
            first = next(iter(losses))
            losses[first] = losses[first] + 0 * torch.stack([p.flatten()[0] for p in self._idle]).sum()
        return losses

    def drop_idle_gradients(self) -> None:
        """Take away the zeros that parts without a loss in this step got as gradients, between backward and step.

        DistributedDataParallel gives them to every parameter, and an optimizer with momentum would move the parts.
        """
        for parameter in self._idle:
            parameter.grad = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """:meth:`auxiliary_losses`, so that DistributedDataParallel synchronises their gradients."""
        return self.auxiliary_losses(batch)

    def sr_losses(self, batch: Batch, pixel_loss: Tensor | None = None) -> Contrast:
        """The weighted terms of the SR network's loss, and one more step counted.

        Args:
            batch: what :meth:`run` returned.
            pixel_loss: the host's pixel loss of ``batch["sr"]``, a scalar; shares are measured against it. Not used
                while :attr:`warming_up`.

        Returns:
            The sum of the weighted terms, to be added to the host's own losses; and what to log, the same names at
            every step and on every rank: of each term its weighted and its raw value, its metrics, the weight and,
            where there is a pixel loss (and in a warm-up), the share. Of a method that takes part in some steps alone
            (``every``) all of that as it was in the latest such step, with its auxiliary losses; weights, weighted
            values and shares are means over all steps.

        Raises:
            ConfigError: :meth:`attach` was not called, a method returned something else than it should, or a
                ``loss_share`` without a pixel loss.
            DataError: a batch of another kind, or a pixel loss that does not depend on the SR image.
            NonFiniteError: a term is NaN or infinite. On a GPU it is raised in the next step, so as not to stall it.
        """
        self._check_ran(batch)
        active = self._active()
        total = zero = batch["hr"].new_zeros((), dtype=torch.float32)
        if self.warming_up and "sr" in batch and world_size() > 1:
            total = total + 0 * batch["sr"].sum()  # DistributedDataParallel waits for every parameter
        metrics: dict[str, Tensor] = {}
        for method in self:
            for part in method.trained_parts().values():
                average_statistics_over_ranks(part)
            terms = self._returned(method, "terms", batch) if method in active else {}
            zeros = dict.fromkeys((name for names in method.metrics.values() for name in names), zero)
            log = _named(method, zeros)
            for key in method.weights:
                weighted = self._weighted(method, key, terms.get(key), batch, pixel_loss)
                total = total + weighted.loss
                log |= weighted.metrics
            log |= self._auxiliary_log.get(method.name, {})
            if method.every > 1 and not self.warming_up:
                if method in active:
                    self._latest[method.name] = log
                log |= self._latest.get(method.name, {})
            metrics |= log
        self.step.advance()
        return Contrast(total, metrics)

    def _weighted(
        self, method: Method, key: str, term: Contrast | None, batch: Batch, pixel_loss: Tensor | None
    ) -> Contrast:
        """A term with its weight, and what to log of it; zeros for one that was left out."""
        weight, label, step = method.weights[key], f"{method.name}_{key}", self.step.value
        assert isinstance(weight, TermWeight)
        if term is None:
            if not self.warming_up:
                weight.check_pixel_loss(pixel_loss)  # now, and not when the term begins
            in_force = raw = loss = batch["hr"].new_zeros((), dtype=torch.float32)
            metrics = {}
        else:
            self._watch(label, term.loss)
            points = term.points or [batch["sr"]]
            self._check_dependence(method, key, term, points)
            if not self.warming_up:
                weight.measure(step, term.loss, pixel_loss, points, every=method.every)
            in_force, raw = weight.at(step), term.loss.detach()
            loss, metrics = in_force * term.loss, _named(method, term.metrics)
        metrics |= {label: loss.detach(), f"{label}_raw": raw, f"{label}_weight": in_force}
        if pixel_loss is not None or self.warming_up:
            metrics[f"{label}_share"] = in_force * weight.latest
        return Contrast(method.every * loss, metrics)

    def compared(self, batch: Batch) -> list[Comparison]:
        """What all methods compare, for a person to look at, their names before the titles.

        To be called in eval mode and without gradients. Nothing is trained, and no state moves.

        Args:
            batch: what :meth:`run` returned.

        Raises:
            ConfigError: a method that does not say.
        """
        return [
            replace(comparison, title=f"{method.name}: {comparison.title}")
            for method in self
            for comparison in method.compared(batch, self._step(method))
        ]

    def _check_attached(self) -> None:
        if not self._attached:
            raise ConfigError(
                "The methods do not know the SR network yet. Call attach(net) once, before the optimizers are made."
            )

    def _check_ran(self, batch: Batch) -> None:
        """Refuse a batch that :meth:`run` did not return."""
        self._check_attached()
        missing = {"sr", *map(feature_key, self._layers(self._active()))} - set(batch)
        if missing and not self.warming_up:  # a warm-up may run a part of the network
            raise DataError(f"Expected the batch that run() returned, got one without {sorted(missing)}.")

    def _active(self) -> list[Method]:
        """The methods of this step; in a warm-up, those that warm up."""
        methods = list(self)
        if self.warming_up:
            return [m for m in methods if self.step.value < m.warmup_steps]
        return [m for m in methods if self.step.value % m.every == 0 or not self.training]

    def _layers(self, methods: Collection[Method] | Methods) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for method in methods for name in method.layers))

    def _step(self, method: Method) -> Step:
        number = self.step.value
        return Step(number, seed_of(method.seed, method.name, number, rank()))

    # ------------------------------------------------------------------------------------- what authors of methods give

    def _returned(self, method: Method, hook: str, batch: Batch) -> Mapping[str, Contrast]:
        """What a hook of a method returned, checked.

        Raises:
            ConfigError: it is not what it should be.
        """
        returned = getattr(method, hook)(batch, self._step(method))
        where = f"{method.name}: {hook}() of {type(method).__name__}"
        if not isinstance(returned, Mapping):
            raise ConfigError(f"{where}: expected a dict of Contrast by name, got {describe(returned)}.")
        for key, contrast in returned.items():
            if hook == "terms" and key not in method.weights:
                raise ConfigError(
                    f"{where} {unknown('term', key, list(method.weights))} They are the names in `weights`."
                )
            _check_contrast(contrast, key, where)
            if hook == "terms" and contrast.points is None and "sr" not in batch:
                raise ConfigError(
                    f"{where}: expected points of {key!r}, outputs of `layers` that it was computed from: in the "
                    f"warm-up {method.warmup_module!r} alone is run, and there is no SR image."
                )
        return returned

    def _check_dependence(self, method: Method, key: str, term: Contrast, points: Sequence[Tensor]) -> None:
        """Refuse, once, a term that would train nothing.

        Raises:
            ConfigError: its gradient does not reach the points.
        """
        label = f"{method.name}_{key}"
        if label in self._depends or not torch.is_grad_enabled() or not all(x.requires_grad for x in points):
            return
        if gradient_square(term.loss, points) is None:
            at = "batch['sr']" if term.points is None else "its points"
            raise ConfigError(
                f"{method.name}: terms() of {type(method).__name__}: expected a loss {key!r} that depends on {at}, got "
                "one without a gradient there. Is it computed under torch.no_grad(), or from detached tensors? A loss "
                "on layers of the network names them as `points`."
            )
        self._depends.add(label)

    # ------------------------------------------------------------------------------------------------- finite or not

    def check_finite(self) -> None:
        """Settle all checks of values on a GPU; to be called before a checkpoint is saved.

        Raises:
            NonFiniteError: a value of the steps so far was NaN or infinite.
        """
        watched, self._watched = self._watched, []
        for name, copy, arrived in watched:
            arrived.synchronize()
            _require_finite(name, copy)

    def _watch(self, label: str, value: Tensor) -> None:
        """Look at a scalar. On a CPU a bad one is an error at once.

        From a GPU it is copied while training goes on, and looked at in the next step, or before a checkpoint is saved:
        reading it at once would stall the device.
        """
        name, value = f"{label} at SR step {self.step.value + 1}", value.detach()
        if value.device.type != "cuda":
            _require_finite(name, value)
            return
        copy = torch.empty_like(value, device="cpu", pin_memory=True)
        copy.copy_(value, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._watched.append((name, copy, arrived))


def _check_contrast(contrast: object, key: str, where: str) -> None:
    if not isinstance(contrast, Contrast):
        raise ConfigError(
            f"{where}: expected a contrastive_sr.losses.Contrast as {key!r}, got {describe(contrast)}. Return "
            "Contrast(loss), with metrics to log if there are any."
        )
    loss, metrics, points = contrast
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        raise ConfigError(
            f"{where}: expected a scalar tensor as loss of {key!r}, got {describe(loss)}. Take its mean()."
        )
    if not isinstance(metrics, Mapping):
        raise ConfigError(f"{where}: expected a dict as metrics of {key!r}, got {describe(metrics)}.")
    for name, value in metrics.items():
        if not isinstance(name, str) or "loss" in name or not isinstance(value, Tensor) or value.ndim:
            raise ConfigError(
                f"{where}: expected scalar tensors as metrics of {key!r}, of names without 'loss', got "
                f"{name!r}: {describe(value)}."
            )
    tensors = isinstance(points, Sequence) and points and all(isinstance(x, Tensor) for x in points)
    if points is not None and not tensors:
        raise ConfigError(
            f"{where}: expected a list of tensors as points of {key!r}, or none for the SR image, got "
            f"{describe(points)}."
        )


def _check_trains(method: Method, key: str, contrast: Contrast) -> None:
    if torch.is_grad_enabled() and not contrast.loss.requires_grad:
        raise ConfigError(
            f"{method.name}: auxiliary() of {type(method).__name__}: expected a loss {key!r} that depends on the "
            "method's parameters, got one without a gradient. The batch is detached there; is the loss computed under "
            "torch.no_grad(), or are the parts frozen? Return no loss for parts that do not learn."
        )


def _require_finite(name: str, value: Tensor) -> None:
    if not torch.isfinite(value).item():
        raise NonFiniteError(
            f"{name}: expected a finite number, got {value.item()}. Lower the learning rates or this term's "
            "loss_weight (or use `loss_share: 0.05`), and resume from the last checkpoint."
        )


def _named(method: Method, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{method.name}_{name}": value.detach() for name, value in metrics.items()}
