"""The engine: drives methods in a training loop, whichever they are and however many."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_shape, describe
from contrastive_sr._random import seed_of
from contrastive_sr.config import unknown
from contrastive_sr.distributed import average_statistics_over_ranks, is_distributed, rank, sum_over_ranks, unwrapped
from contrastive_sr.errors import ConfigError, DataError, NonFiniteError
from contrastive_sr.functional.graphs import outside_graphs
from contrastive_sr.losses import Contrast
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.later import Later
from contrastive_sr.methods.layers import dry_run, feature_key, layer_modules, run_module, super_resolve
from contrastive_sr.methods.still import STEPS, Still
from contrastive_sr.methods.weighting import TermWeight, gradient_square
from contrastive_sr.networks import CRLSR, DASR, CriteriaBranches, MPFNet
from contrastive_sr.networks.call import NetworkCall, check_channels, is_images
from contrastive_sr.samples import Batch, PastOutput

OWN_NETWORKS = (CRLSR, CriteriaBranches, DASR, MPFNet)
RECOVERY = (
    "Lower the learning rates or this term's loss_weight (or use `loss_share: 0.05`), and resume from the last "
    "checkpoint."
)
NETWORK_SR = "network/sr"  # the SR images as the network gave them, where those of the batch are others


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

    Random draws depend only on a method's seed and name, the step and the process; so ``state_dict()`` is all that a
    resumed run needs to continue bit for bit. ``methods["pcl"]`` is the method of that name.

    A network for one-channel images is called with one-channel images; methods see them as three equal channels.

    Args:
        methods: the methods; their names must differ. With none, the network trains on the host's losses alone.
        sr_output: for a network that returns a tuple, list or mapping: the index or key of the SR image in it.
        image_range: the largest value of the images that :meth:`run` is given and that the network takes and returns;
            255.0 in loops such as EDSR-PyTorch's. The images that :meth:`run` returns are in [0, 1]. A teacher
            (:class:`~contrastive_sr.samples.TeacherOutput`) always takes images in [0, 1].
        skip_nonfinite: how many SR steps to tolerate in which a term or an auxiliary loss is NaN or infinite on any
            rank; one more is an error. Such a term is left out of its step; if one auxiliary loss of a method is not
            finite, all auxiliary losses of that method are left out. Running statistics and queues are then as they
            were before. Where SR, HR or LR images are not finite, all methods sit the step out, and a network that
            :meth:`run` has called gets its buffers back; the host's own losses are up to the host. The first batch has
            to be finite. There is a warning, and ``nonfinite_steps`` in the log counts these steps. Values are checked,
            not gradients, and at once, which stalls a GPU several times in each step. 0: the first such step is an
            error.

    Raises:
        ConfigError: something that is not a method, two methods of the same name, a name that this class needs itself,
            or an option that makes no sense.

    Example:
        >>> from contrastive_sr.methods import PCL
        >>> net, methods = nn.Upsample(scale_factor=4), Methods([PCL()])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['pcl_discriminator']
    """

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        sr_output: int | str | None = None,
        image_range: float = 1.0,
        skip_nonfinite: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(methods, Sequence) or not all(isinstance(method, Method) for method in methods):
            raise ConfigError(f"methods: expected a list of methods such as [PCL()], got {describe(methods)}.")
        names = [method.name for method in methods]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"methods: expected methods with different `name`, got {names}. Give each its own, e.g. `name: nce_2`."
            )
        self.step = StepCounter()
        self.skip_nonfinite = check_count(skip_nonfinite, "skip_nonfinite", at_least=0)
        self.nonfinite_steps = StepCounter() if skip_nonfinite else None  # without the option no part of the state
        self._sits_out = False  # all methods, in this step
        self._counted = False  # whether this step is among nonfinite_steps
        self._logged: dict[str, None] = {}  # all names so far, in one order on all ranks
        self._call = NetworkCall(image_range=image_range, sr_output=sr_output)
        self._attached = self._checked = False
        self._auxiliary_log: dict[str, dict[str, Tensor]] = {}  # by method
        self._latest: dict[str, dict[str, Tensor]] = {}  # what lazy methods logged when they last took part
        self._auxiliary_names: set[str] = set()
        self._idle: set[nn.Parameter] | None = None  # what no auxiliary loss reached since gradients were dropped
        self._depends: set[str] = set()  # terms whose gradient was seen to reach their points
        self._watched: list[tuple[str, Later]] = []
        self._still: defaultdict[str, Still] = defaultdict(Still)  # by term
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
        """What the methods read from a batch besides ``"lr"`` and ``"hr"``; see :class:`Method`."""
        return tuple(dict.fromkeys(name for method in self for name in method.wants))

    @property
    def trainable(self) -> bool:
        """Whether any part of any method needs an optimizer."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def warming_up(self) -> bool:
        """Whether this is a step in which the host's own losses do not count; a batch need not have an SR image then.

        Always False in eval mode, which is for inspecting methods and in which the whole network is run.
        """
        return self.training and any(self.step.value < method.warmup_steps for method in self)

    @property
    def loss_names(self) -> set[str]:
        """Names of the logged values seen so far that are losses: weighted terms, and auxiliary losses."""
        terms = {f"{method.name}_{key}" for method in self for key in method.weights}
        return terms | self._auxiliary_names

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the SR network's modules whose outputs are read in this step."""
        return self._layers(self._due())  # asked for before run(), which finds out whether it is sat out

    def trained_parts(self) -> dict[str, nn.Module]:
        """All methods' networks that are of use beyond this training; see :meth:`Method.trained_parts`."""
        return {label: part for method in self for label, part in method.trained_parts().items()}

    # ------------------------------------------------------------------------------------------- before the first step

    def attach(self, net: Callable[..., Any], inputs: Mapping[str, Any] | None = None) -> None:
        """Prepare all methods for the SR network: once, before DDP and before optimizers take ``parameters()``.

        Args:
            net: the SR network, wrapped for several processes or not. With ``layers`` it is called once, on a small
                black image.
            inputs: what the network is called with besides one LR image, by keyword, such as ``{"idx_scale": 0}``.

        Raises:
            ConfigError: a network that a method cannot train or that lacks the layers it reads, or a second call.
        """
        if self._attached:
            raise ConfigError("attach() was called before; new parts of the methods would not be in the optimizer.")
        bare = unwrapped(net)
        if isinstance(bare, OWN_NETWORKS) and self._call.image_range != 1:
            raise ConfigError(
                f"image_range: expected 1.0 with {type(bare).__name__}, whose images are in [0, 1], got "
                f"{self._call.image_range:g}. Divide the images by {self._call.image_range:g} in the loop."
            )
        for method in self:
            method.check_network(bare)
        dry = self._dry_run(net, _checked_inputs(inputs))
        for method in self:
            method.build(bare, dry)
        for part in self.modules():
            if isinstance(part, PastOutput):
                part.call = self._call
        self._attached = True

    def _dry_run(self, net: Any, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        layers = self._layers(self)
        if not layers:
            return {}
        layer_modules(net, layers)  # refuses a network that cannot be read as it is wrapped
        bare = unwrapped(net)
        dry = dry_run(bare, layers, lambda lr: self.network_inputs(bare, {"lr": lr}, inputs), self._call)
        return self._as_rgb(dry)

    def network_inputs(self, net: Any, batch: Batch, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the network is called with beside the LR images: what methods give, and what the loop gives."""
        inputs = inputs or {}
        of_methods = {key: x for method in self for key, x in method.network_inputs(net, batch).items()}
        if both := sorted(set(of_methods) & set(inputs)):
            raise ConfigError(
                f"inputs: expected others than {both}, which the methods give the network. Leave them out."
            )
        return {**of_methods, **inputs}

    def _as_rgb(self, batch: Batch) -> dict[str, Tensor]:
        """The batch with its images as RGB in [0, 1]."""
        return {key: self._call.rgb(x) if is_images(key, x) else x for key, x in batch.items()}

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse training data that a method cannot use; see :meth:`Method.check_data`."""
        for method in self:
            method.check_data(names, images)

    def check_batch(self, batch: Batch) -> None:
        """Refuse a batch that cannot be trained on; :meth:`run` does it with the first one.

        Raises:
            DataError: missing images, wrong shapes, HR not a whole multiple of LR, values out of range, or what a
                method cannot use.
        """
        for key in ("lr", "hr"):
            if key not in batch:
                raise DataError(f"Expected a batch with 'lr' and 'hr', got {sorted(batch)}.")
            check_shape(batch[key], ("B", "3 or 1", "H", "W"), f"batch[{key!r}]")
        self._call.channels = check_channels(batch)
        for key in ("lr", "hr"):
            self._check_range(batch[key], f"batch[{key!r}]")
        if (highest := batch["hr"].max().item()) <= 1 < self._call.image_range:
            warnings.warn(
                f"The largest value of batch['hr'] is {highest:.4g}, where image_range={self._call.image_range:g} was "
                "given. Are the images in [0, 1]? Then leave image_range out.",
                stacklevel=3,
            )
        (height, width), (h, w) = batch["hr"].shape[-2:], batch["lr"].shape[-2:]
        scale = height // h
        if batch["hr"].shape[0] != batch["lr"].shape[0] or scale < 1 or (height, width) != (scale * h, scale * w):
            raise DataError(
                f"Expected HR images of a whole multiple of the LR size, one each, got LR {tuple(batch['lr'].shape)} "
                f"and HR {tuple(batch['hr'].shape)}. Check the pairs and the scale; the patch size must be a multiple "
                "of it."
            )
        batch = self._as_rgb(batch)
        for method in self:
            method.check_batch(batch)

    def _check_range(self, images: Tensor, name: str) -> None:
        largest = self._call.image_range
        low, high = images.min().item(), images.max().item()
        if not math.isfinite(low) or not math.isfinite(high):
            raise DataError(
                f"Expected {name} in [0, {largest:g}], got NaN or infinity in the first batch. Look at the images, and "
                "at what is done to them when they are loaded."
            )
        if low >= -1e-3 * largest and high <= (1 + 1e-3) * largest:
            return
        hint = (
            "Divide images by 255, and leave out any mean or standard deviation in the data settings; in a loop of "
            "your own, Methods(..., image_range=255.0) takes them as they are."
            if largest == 1
            else "That is image_range of Methods; give another, and leave out any mean or standard deviation."
        )
        raise DataError(f"Expected {name} in [0, {largest:g}], got values from {low:.4g} to {high:.4g}. {hint}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if len(self) and not self._attached:
            raise ConfigError(
                "The parts of the methods that a state is for do not exist yet. Call attach(net) before "
                "load_state_dict()."
            )
        key = f"{prefix}nonfinite_steps.count"  # a run may be resumed with the option, or without
        if self.nonfinite_steps is None:
            state_dict.pop(key, None)
        else:
            state_dict.setdefault(key, torch.zeros((), dtype=torch.long))
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ------------------------------------------------------------------------------------------------- a training step

    @outside_graphs
    def run(self, net: Callable[..., Any], batch: Batch, inputs: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Super-resolve the batch, with one call of the network.

        Args:
            net: the SR network, called as ``sr = net(lr)``, wrapped for several processes or not.
            batch: ``"lr"`` (B, C, h, w) and ``"hr"`` (B, C, s h, s w), RGB or of one channel, in [0, 1] (or, with
                ``image_range``, up to that). If it has ``"sr"`` already, the network is not called again. The channels
                and the range apply to every other entry whose name begins with ``"lr_"`` as well, such as ``"lr_key"``.
            inputs: what the network is called with besides the LR images, by keyword, such as ``{"idx_scale": 0}``.

        Returns:
            The batch with ``"sr"`` (B, 3, s h, s w) in float32, and ``"features/<name>"`` of the methods' layers, all
            part of the network's graph. All its images are RGB in [0, 1]: one channel is repeated three times, which
            changes no pixel loss that is a mean. In the warm-up of a method with a ``warmup_module``, without
            ``"sr"``.

        Raises:
            ConfigError: :meth:`attach` was not called, a layer that the network does not have, or a network that
                returns more than an image, where ``sr_output`` does not say which part is the image.
            DataError: images of the wrong shape; in the first call also, values out of range.
            NonFiniteError: the SR images are not finite. On a GPU it is raised in the next step.
        """
        self.check_finite()
        self._check_attached()
        self._call.inputs = _checked_inputs(inputs)
        if not self._checked:
            self.check_batch(batch)
        self._call.channels = check_channels(batch)
        given, batch = batch, self._as_rgb(batch)
        self._sits_out = self._counted = False
        if self.training:
            for method in self:
                method.follow(unwrapped(net), self._step(method))
        layers = self._layers(self._active())
        modules = {method.warmup_module for method in self._active()} if self.warming_up else {None}
        statistics = self._held(unwrapped(net)) if self._survives else []
        if "sr" in given:
            batch["sr"] = given["sr"]
            if missing := [name for name in layers if feature_key(name) not in batch]:
                raise DataError(
                    f"The batch has its 'sr' already, but not the features of {missing} from the same call of the "
                    "network. Run it without 'sr'."
                )
        elif None not in modules:
            for module in sorted(filter(None, modules)):
                inner = [layer for layer in layers if layer == module or layer.startswith(f"{module}.")]
                batch.update(run_module(unwrapped(net), module, given["lr"], inner))
        else:
            all_inputs = self.network_inputs(unwrapped(net), batch, self._call.inputs)
            batch.update(super_resolve(net, given["lr"], layers, all_inputs, self._call))
        if "sr" in batch:
            sr = batch["sr"]
            # Losses are computed in float32: the gradient of a mean over pixels underflows in half precision.
            sr = sr.float() if isinstance(sr, Tensor) and sr.dtype != torch.float64 else sr
            check_shape(sr, tuple(given["hr"].shape), "the SR network's output")
            batch["sr"] = self._call.rgb(sr)
            if batch["sr"] is not sr:
                batch[NETWORK_SR] = sr
        means = {"mean of the SR network's output": batch["sr"].mean()} if "sr" in batch else {}
        if self._survives:
            images = (key for key, x in batch.items() if is_images(key, x) and key != "sr")
            means |= {f"mean of batch[{key!r}]": batch[key].mean() for key in images}
        self._sits_out = bool(self._not_finite(None, means))
        if self._sits_out:
            _restore(statistics)
        self._checked = True
        return batch

    @outside_graphs
    def auxiliary_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses that train the methods' own parts, computed on the detached batch.

        Args:
            batch: what :meth:`run` returned.

        Returns:
            Scalars by name, their sum to be minimised over ``parameters()``; empty if nothing trains.

        Raises:
            ConfigError: :meth:`attach` was not called, or a method returned something else or a loss that trains
                nothing.
            DataError: a batch that :meth:`run` did not return.
            NonFiniteError: one of them is NaN or infinite (and ``skip_nonfinite`` steps were survived). On a GPU it is
                raised in the next step.
        """
        self._check_ran(batch)
        losses: dict[str, Tensor] = {}
        self._auxiliary_log = {}
        active = self._active()
        batch = {key: x.detach() if isinstance(x, Tensor) else x for key, x in batch.items()}
        for method in self:
            buffers = self._held(method)
            contrasts = self._returned(method, "auxiliary", batch) if method in active else {}
            if self._not_finite(method, {key: contrast.loss for key, contrast in contrasts.items()}):
                contrasts = {}
                _restore(buffers, method)
            for key, contrast in contrasts.items():
                _check_trains(method, key, contrast)
                label = f"{method.name}_{key}"
                losses[label] = contrast.loss
                self._auxiliary_names.add(label)
                log = self._auxiliary_log.setdefault(method.name, {})
                log |= _named(method, contrast.metrics)
                if method.every > 1:  # its callers have no auxiliary loss to log at every step
                    log[label] = contrast.loss.detach()
        learning = _leaves(losses.values())
        idle = [p for p in self.parameters() if p.requires_grad and p not in learning]
        self._idle = set(idle) if self._idle is None else self._idle & set(idle)
        if losses and idle and is_distributed():  # DistributedDataParallel waits for every parameter
            first = next(iter(losses))
            losses[first] = losses[first] + 0 * torch.stack([p.flatten()[0] for p in idle]).sum()
        return losses

    def drop_idle_gradients(self) -> None:
        """Take away the zeros that parts without a loss got as gradients, between backward and step.

        DistributedDataParallel gives them to every parameter, and an optimizer with momentum would move the parts.
        With gradients that are accumulated over several batches, a part without a loss in all of them is meant.
        """
        for parameter in self._idle or ():
            parameter.grad = None
        self._idle = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """:meth:`auxiliary_losses`, so that DistributedDataParallel synchronises their gradients."""
        return self.auxiliary_losses(batch)

    @outside_graphs
    def sr_losses(self, batch: Batch, pixel_loss: Tensor | None = None) -> Contrast:
        """The weighted terms of the SR network's loss, and one more step counted.

        In eval mode no step is counted and nothing is measured.

        Args:
            batch: what :meth:`run` returned.
            pixel_loss: the host's pixel loss of ``batch["sr"]``, a scalar; shares are measured against it. Not used
                while :attr:`warming_up`.

        Returns:
            The sum of the weighted terms, to be added to the host's own losses; and what to log, the same names at
            every step and on every rank: for each term its weighted and its raw value, its metrics, the weight and,
            where there is a pixel loss (and in a warm-up), the share. For a method that takes part only in some steps
            (``every``), all of this is as it was in the latest such step since the training was started or resumed (0
            before the first), and so are its auxiliary losses, of which there is none before; weights, weighted values
            and shares are means over all steps.

        Raises:
            ConfigError: :meth:`attach` was not called, a method returned something else than it should, or a
                ``loss_share`` without a pixel loss.
            DataError: a batch that :meth:`run` did not return, or a pixel loss that does not depend on the SR image.
            NonFiniteError: a term is NaN or infinite (and ``skip_nonfinite`` steps were survived). On a GPU it is
                raised in the next step, so as not to stall it.
        """
        self._check_ran(batch)
        active = self._active()
        total = zero = batch["hr"].new_zeros((), dtype=torch.float32)
        if self.warming_up and "sr" in batch and is_distributed() and not self._sits_out:
            total = total + 0 * batch["sr"].sum()  # DistributedDataParallel waits for every parameter
        metrics: dict[str, Tensor] = {}
        for method in self:
            if self.training:  # one rank may validate alone, in eval mode
                for part in method.trained_parts().values():
                    average_statistics_over_ranks(part)
            names = [name for names in method.metrics.values() for name in names]
            buffers = self._held(method)
            terms = dict(self._returned(method, "terms", batch)) if method in active else {}
            if method in active:
                values = {key: terms[key].loss if key in terms else None for key in method.weights}
                lost = self._not_finite(method, values)
                if lost or not self.training:
                    _restore(buffers, method)
                for key in lost:
                    if key in terms:
                        names += terms.pop(key).metrics
            log = _named(method, dict.fromkeys(names, zero))
            for key in method.weights:
                weighted = self._weighted(method, key, terms.get(key), batch, pixel_loss)
                total = total + weighted.loss
                log |= weighted.metrics
            log |= self._auxiliary_log.get(method.name, {})
            if method.every > 1 and self.training and not self.warming_up:
                if method in active:
                    self._latest[method.name] = log
                log |= self._latest.get(method.name, {})
            metrics |= log
        if self.nonfinite_steps is not None:
            metrics["nonfinite_steps"] = zero + self.nonfinite_steps.value
            self._logged |= dict.fromkeys(metrics)
            metrics = {name: metrics.get(name, zero) for name in self._logged}
            if self._counted and not total.requires_grad:
                total = total.clone().requires_grad_()  # a loop without other losses calls backward() all the same
        if self.training:
            self.step.advance()
        return Contrast(total, metrics)

    def _weighted(
        self, method: Method, key: str, term: Contrast | None, batch: Batch, pixel_loss: Tensor | None
    ) -> Contrast:
        """A term with its weight, and what to log of it; zeros for one that was left out."""
        weight, label, step = method.weights[key], f"{method.name}_{key}", self._number(method)
        assert isinstance(weight, TermWeight)
        if term is None:
            if not self.warming_up:
                weight.check_pixel_loss(pixel_loss)  # now, and not when the term begins
            in_force = raw = loss = batch["hr"].new_zeros((), dtype=torch.float32)
            metrics = {}
        else:
            points = term.points or [batch.get(NETWORK_SR, batch["sr"])]
            self._check_dependence(method, key, term, points)
            if self.training and not self.warming_up:
                weight.measure(step, term.loss, pixel_loss, points, every=method.every)
            in_force, raw = weight.at(step), term.loss.detach()
            if self.training and self._still[label].is_dead(raw):
                warnings.warn(
                    f"{label} at SR step {self.step.value + 1}: expected a loss that changes from step to step, got "
                    f"exactly {raw.item():.4g}, {STEPS} times in a row. The contrast is dead, as where the training "
                    "has diverged: lower the learning rates, and resume from an earlier checkpoint. A loss with a "
                    "margin is 0 where all have it.",
                    stacklevel=3,
                )
            loss, metrics = in_force * term.loss, _named(method, term.metrics)
        metrics |= {label: loss.detach(), f"{label}_raw": raw, f"{label}_weight": in_force}
        if pixel_loss is not None or self.warming_up:
            metrics[f"{label}_share"] = in_force * weight.latest
        # in eval mode the term is there at each call, and makes up for none
        return Contrast(method.every * loss if self.training else loss, metrics)

    def compared(self, batch: Batch) -> list[Comparison]:
        """What all methods compare, for a person to look at, with their names in front of the titles.

        To be called in eval mode and without gradients. Nothing is trained, and no state moves.

        Args:
            batch: what :meth:`run` returned.

        Raises:
            ConfigError: a method that does not implement this.
        """
        comparisons = []
        for method in self:
            buffers = self._held(method)
            of_method = method.compared(batch, self._step(method))
            comparisons += [replace(each, title=f"{method.name}: {each.title}") for each in of_method]
            _restore(buffers, method)
        return comparisons

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

    def _due(self) -> list[Method]:
        """The methods whose turn it is in this step; in a warm-up, those that warm up."""
        methods = list(self)
        if self.warming_up:
            return [m for m in methods if self.step.value < m.warmup_steps]
        return [m for m in methods if self._number(m) % m.every == 0 or not self.training]

    def _active(self) -> list[Method]:
        """The methods that take part in this step: none where the images are not finite."""
        return [] if self._sits_out else self._due()

    def _layers(self, methods: Collection[Method] | Methods) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for method in methods for name in method.layers))

    def _number(self, method: Method) -> int:
        """How many SR steps a method has seen; it rests where others warm up and it does not."""
        longest = max(other.warmup_steps for other in self)
        return min(self.step.value, method.warmup_steps) + max(self.step.value - longest, 0)

    def _step(self, method: Method) -> Step:
        return Step(self._number(method), seed_of(method.seed, method.name, self.step.value, rank()))

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
        for name, value in watched:
            _require_finite(name, value)

    @property
    def _survives(self) -> bool:
        """Whether values that are not finite may be left out, rather than be an error."""
        return self.nonfinite_steps is not None and self.training

    def _not_finite(self, method: Method | None, values: Mapping[str, Tensor | None]) -> list[str]:
        """Look at scalars, and say which of them are not finite on some rank and are to be left out.

        Args:
            method: whose they are; None: of no method.
            values: by name, the same names on all ranks. None stands for a value that a rank does not have.

        Raises:
            NonFiniteError: one step more than may be survived.
        """
        labels = [key if method is None else f"{method.name}_{key}" for key in values]
        if not self._survives or not values:
            for label, value in zip(labels, values.values(), strict=True):
                if value is not None:
                    self._watch(label, value)
            return []
        assert self.nonfinite_steps is not None
        like = self.step.count
        finite = [torch.ones_like(like, dtype=torch.bool) if x is None else torch.isfinite(x) for x in values.values()]
        # The ranks agree: where some left a term out and others not, they would wait for each other in backward passes.
        ranks = sum_over_ranks(1.0 - torch.stack([x.to(like.device) for x in finite]).float()).tolist()
        lost = {key: label for key, label, count in zip(values, labels, ranks, strict=True) if count}
        if lost and not self._counted:
            value = next(values[key] for key in lost)
            got = "one of another process" if value is None or torch.isfinite(value) else f"{value.item()}"
            said = f"{', '.join(lost.values())} at SR step {self.step.value + 1}: expected a finite number, got {got}"
            if self.nonfinite_steps.value >= self.skip_nonfinite:
                raise NonFiniteError(f"{said}, after the {self.skip_nonfinite} steps of skip_nonfinite. {RECOVERY}")
            self._counted = True
            self.nonfinite_steps.advance()
            if rank() == 0:
                count = f"{self.nonfinite_steps.value} of the {self.skip_nonfinite} steps of skip_nonfinite"
                warnings.warn(f"{said}; left out of this step. That is {count}.", stacklevel=3)
        return list(lost)

    def _held(self, module: Callable[..., Any]) -> list[tuple[Tensor, Tensor]]:
        """A module's buffers, and what is in them, where they may be put back: in eval mode, with skip_nonfinite."""
        if not isinstance(module, nn.Module) or (self.training and not self._survives):
            return []
        return [(x, x.clone()) for x in module.buffers()]

    def _watch(self, label: str, value: Tensor) -> None:
        """Look at a scalar. On a CPU a bad one is an error at once.

        From a GPU it is copied while training goes on, and looked at in the next step, or before a checkpoint is saved:
        reading it at once would stall the device.
        """
        name, later = f"{label} at SR step {self.step.value + 1}", Later(value)
        if later.is_there:
            _require_finite(name, later)
        else:
            self._watched.append((name, later))


def _checked_inputs(inputs: object) -> Mapping[str, Any]:
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping) or not all(isinstance(key, str) for key in inputs):
        raise ConfigError(
            "inputs: expected what the SR network is called with beside the LR images, by keyword, such as "
            f"{{'idx_scale': 0}}, got {describe(inputs)}."
        )
    return inputs


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


def _restore(buffers: Iterable[tuple[Tensor, Tensor]], method: Method | None = None) -> None:
    for buffer, before in buffers:
        buffer.data.copy_(before)  # not the buffer itself: the backward pass of another term may ask for its version
    if method is not None:
        method.restored()


def _leaves(losses: Iterable[Tensor]) -> set[Tensor]:
    """The parameters that a backward pass of the losses reaches."""
    nodes = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen, found = set(nodes), set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            found.add(node.variable)
        before = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= before
        nodes += before
    return found


def _require_finite(name: str, value: Later) -> None:
    number = value.read()
    if not math.isfinite(number):
        raise NonFiniteError(f"{name}: expected a finite number, got {number}. {RECOVERY}")


def _named(method: Method, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{method.name}_{name}": value.detach() for name, value in metrics.items()}
