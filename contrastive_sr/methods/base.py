"""What a method is: everything a paper adds to ordinary SR training, without a framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_shape
from contrastive_sr.distributed import rank, world_size
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.finite import FiniteCheck
from contrastive_sr.methods.layers import feature_key, super_resolve
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch


@dataclass
class Term:
    """One unweighted term of the SR network's loss.

    Attributes:
        value: a scalar with a gradient at the points.
        figures: what to log beside it, detached scalars by name.
        points: what the term is computed from, where its gradient is compared with that of the pixel loss. None:
            ``batch["sr"]``.
    """

    value: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)
    points: Sequence[Tensor] | None = None


@dataclass
class SRLosses:
    """What a method adds to one step of the SR network.

    Attributes:
        total: the sum of the weighted terms, to be added to the host's own losses.
        terms: the weighted terms by name.
        logs: detached scalars by name; the same names at every step and on every rank, none with "loss" in it.
        host_factor: what the host's own losses count in this step, 0 or 1; see :meth:`host`.
    """

    total: Tensor
    terms: dict[str, Tensor]
    logs: dict[str, Tensor]
    host_factor: int = 1

    def host(self, loss: Tensor) -> Tensor:
        """One of the host's own losses, as it counts in this step.

        With a factor of 0 it has no gradient, and parameters that nothing else trains keep none: so Adam does not fill
        their moments with zeros, which would make its first real steps too long. DistributedDataParallel waits for
        every parameter; with several ranks the gradient is therefore there, and zero.
        """
        if self.host_factor == 1:
            return loss
        return 0 * (loss if world_size() > 1 else loss.detach())


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


class Method(nn.Module):
    """A paper's addition to SR training: three calls a step, and all of its state in one module.

    ::

        method.attach(net)                                # once, before optimizers are made

        batch = method.run(net, {"lr": lr, "hr": hr})     # adds batch["sr"]
        auxiliary = method.auxiliary_losses(batch)        # trains the method's own parts
        losses = method.sr_losses(batch, pixel_loss)      # losses.total goes to the SR network

    Subclasses give :meth:`terms`, and :meth:`auxiliary_terms` if they have parts to train. Everything random is drawn
    from :meth:`generator`, which depends on the seed, the step and the rank alone; so ``state_dict()`` is all that
    a resumed run needs to continue bit for bit.

    Attributes:
        layers: names of the SR network's modules whose outputs the method needs, as ``batch["features/<name>"]``.
        wants: names of what it reads of a batch beside ``"lr"`` and ``"hr"``, for hosts that can make it, such as
            ``"lr_key"``. A host that cannot, leaves it out.
        warmup_steps: the first so many SR steps train the network without the host's own losses.

    Args:
        name: prefix of everything this method logs.
        seed: seed of its random draws.
        weights: one :class:`~contrastive_sr.methods.weighting.TermWeight` a term, by the term's name.

    Raises:
        ConfigError: a name that is empty or holds "loss", ".", "/" or a space.
    """

    layers: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    warmup_steps: int = 0

    def __init__(self, name: str, seed: int, weights: Mapping[str, TermWeight]) -> None:
        super().__init__()
        if not isinstance(name, str) or not name or "loss" in name or any(c in name for c in "./ "):
            # Hosts sum every log entry whose name holds "loss", and state dict keys are split at dots.
            raise ConfigError(f"name: expected a word without 'loss', dots, slashes and spaces, got {name!r}.")
        self.name = name
        self.seed = check_count(seed, f"{name}: seed", at_least=0)
        self.step = StepCounter()
        self.weights = nn.ModuleDict(weights)
        self._checked = False
        self._finite = FiniteCheck()

    @property
    def trainable(self) -> bool:
        """Whether any part of this method needs an optimizer."""
        return any(p.requires_grad for p in self.parameters())

    def attach(self, net: nn.Module) -> None:
        """Get to know the SR network: once, before optimizers are made from ``parameters()`` and before DDP.

        Only a method that reads the network's own ``layers`` has something to do here.

        Args:
            net: the SR network.

        Raises:
            ConfigError: the network does not have the layers that the method reads.
        """

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse training data that this method cannot use, before there is a batch of them; most can use any.

        Args:
            names: what the batches will hold.
            images: how many images a step will have, over all processes.

        Raises:
            DataError: something that the method needs will be missing, or there are more images than it can hold.
        """

    def run(self, net: Callable[[Tensor], Tensor], batch: Batch, layers: Sequence[str] = ()) -> dict[str, Tensor]:
        """Super-resolve the batch.

        Args:
            net: the SR network, called as ``sr = net(lr)``.
            batch: ``"lr"`` (B, 3, h, w) and ``"hr"`` (B, 3, s h, s w), RGB in [0, 1]. If it has ``"sr"`` already,
                the network is not called again.
            layers: layers of the network that other methods need from this call, beside those of this one.

        Returns:
            The batch with ``"sr"`` (B, 3, s h, s w) in float32, and ``"features/<name>"`` of the layers, all part of
            the network's graph.

        Raises:
            DataError: images of the wrong shape; in the first call also, values outside [0, 1].
            ConfigError: a layer that the network does not have.
            NonFiniteError: the SR images are not finite. On a GPU it is raised in the next step.
        """
        self.check_finite()
        batch = dict(batch)
        if not self._checked:
            self.check_batch(batch)
        if "sr" not in batch:
            batch.update(super_resolve(net, batch["lr"], tuple(dict.fromkeys((*self.layers, *layers)))))
            sr = batch["sr"]
            # Losses are computed in float32: the gradient of a mean over pixels underflows in half precision.
            batch["sr"] = sr.float() if isinstance(sr, Tensor) and sr.dtype != torch.float64 else sr
        check_shape(batch["sr"], tuple(batch["hr"].shape), "the SR network's output")
        if missing := [name for name in self.layers if feature_key(name) not in batch]:
            raise DataError(
                f"{self.name}: the batch has its 'sr' already, but not the features of {missing} from the same call of "
                "the network. Run it without 'sr', or put both methods into one MethodList."
            )
        self._watch("mean of the SR network's output", batch["sr"].detach().mean())
        self._checked = True
        return batch

    def check_batch(self, batch: Batch) -> None:
        """Refuse a first batch that cannot be trained on.

        Raises:
            DataError: missing images, wrong shapes, HR not a whole multiple of LR, or values outside [0, 1].
        """
        for key in ("lr", "hr"):
            if key not in batch:
                raise DataError(f"{self.name}: expected a batch with 'lr' and 'hr', got {sorted(batch)}.")
            check_shape(batch[key], ("B", 3, "H", "W"), f"{self.name}: batch[{key!r}]")
            low, high = batch[key].min().item(), batch[key].max().item()
            if not (low >= -1e-3 and high <= 1 + 1e-3):  # also true for NaN
                raise DataError(
                    f"{self.name}: expected batch[{key!r}] in [0, 1], got values from {low:.4g} to {high:.4g}. "
                    "Divide images by 255, and leave out any mean or standard deviation in the data settings."
                )
        (height, width), (h, w) = batch["hr"].shape[-2:], batch["lr"].shape[-2:]
        scale = height // h
        if batch["hr"].shape[0] != batch["lr"].shape[0] or scale < 1 or (height, width) != (scale * h, scale * w):
            raise DataError(
                f"{self.name}: expected HR images of a whole multiple of the LR size, one each, got LR "
                f"{tuple(batch['lr'].shape)} and HR {tuple(batch['hr'].shape)}. Check the pairs and the scale; the "
                "patch size must be a multiple of it."
            )

    @classmethod
    def example(cls, scale: int) -> tuple[Method, nn.Module | None]:
        """One to look at, with its defaults and new weights; nothing is downloaded for it.

        Args:
            scale: of the SR network.

        Returns:
            The method, and the SR network if it needs one of its own, to which it is not attached yet.
        """
        weights: dict[str, Any] = {name: 1.0 for name in inspect.signature(cls).parameters if name.endswith("_weight")}
        return cls(**weights), None

    def compared(self, batch: Batch) -> list[Comparison]:
        """What this method compares in a step, of the first image of a batch, for a person to look at.

        To be called in eval mode and without gradients. Nothing is trained, and no state moves.

        Args:
            batch: what :meth:`run` returned.

        Returns:
            One :class:`~contrastive_sr.methods.Comparison` for each anchor; none if the method compares nothing.

        Raises:
            ConfigError: a method that does not say.
        """
        raise ConfigError(
            f"{self.name}: {type(self).__name__} does not say what it compares. Give the class a method "
            "compared(batch) that returns a list of contrastive_sr.methods.Comparison."
        )

    def trained_parts(self) -> dict[str, nn.Module]:
        """The networks this method trains that are of use beyond this training, by file label."""
        return {}

    def auxiliary_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses that train the method's own parts, computed on the detached SR images.

        Args:
            batch: what :meth:`run` returned.

        Returns:
            Scalars by name, their sum to be minimised over ``parameters()``; empty if nothing trains.

        Raises:
            NonFiniteError: one of them is NaN or infinite. On a GPU it is raised in the next step.
        """
        losses = {f"{self.name}_{key}": loss for key, loss in self.auxiliary_terms(batch).items()}
        for label, loss in losses.items():
            self._watch(label, loss)
        return losses

    def auxiliary_terms(self, batch: Batch) -> dict[str, Tensor]:
        """The losses behind :meth:`auxiliary_losses`, by name; none unless a method has parts to train."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """:meth:`auxiliary_losses`, so that DistributedDataParallel synchronises their gradients."""
        return self.auxiliary_losses(batch)

    def terms(self, batch: Batch) -> dict[str, Term]:
        """The unweighted terms of the SR network's loss.

        Args:
            batch: what :meth:`run` returned.

        Returns:
            One :class:`Term` for each name in ``weights``.
        """
        raise NotImplementedError

    def sr_losses(self, batch: Batch, pixel_loss: Tensor | None = None) -> SRLosses:
        """The weighted terms of the SR network's loss, and one more step counted.

        Args:
            batch: what :meth:`run` returned.
            pixel_loss: the host's pixel loss of ``batch["sr"]``, a scalar; shares are measured against it.

        Returns:
            :class:`SRLosses`. Of each term are logged: the raw value, its figures, the weight and, where there is a
            pixel loss, the share.

        Raises:
            NonFiniteError: a term is NaN or infinite. On a GPU it is raised in the next step, so as not to stall it.
            ConfigError: a ``loss_share`` without a pixel loss.
        """
        losses = SRLosses(batch["sr"].new_zeros(()), {}, {}, host_factor=int(self.step.value >= self.warmup_steps))
        for key, term in self.terms(batch).items():
            weight = self.weights[key]
            assert isinstance(weight, TermWeight)
            label = f"{self.name}_{key}"
            raw = term.value.detach()
            self._watch(label, raw)
            weight.measure(self.step.value, term.value, pixel_loss, term.points or [batch["sr"]])
            in_force = weight.at(self.step.value)
            losses.terms[label] = in_force * term.value
            losses.total = losses.total + losses.terms[label]
            losses.logs[f"{label}_raw"] = raw
            losses.logs.update({f"{self.name}_{figure}": value for figure, value in term.figures.items()})
            losses.logs[f"{label}_weight"] = in_force
            if pixel_loss is not None:
                losses.logs[f"{label}_share"] = in_force * weight.latest
        self.step.advance()
        return losses

    def check_finite(self) -> None:
        """Settle all checks of values on a GPU; to be called before a checkpoint is saved.

        Raises:
            NonFiniteError: a value of the steps so far was NaN or infinite.
        """
        self._finite.settle()

    def _watch(self, label: str, value: Tensor) -> None:
        self._finite.watch(f"{label} at SR step {self.step.value + 1}", value.detach())

    def generator(self, device: torch.device) -> torch.Generator:
        """The source of this step's random draws, on the given device."""
        seed = self.seed + (self.step.value * world_size() + rank()) * 1_000_003
        return torch.Generator(device).manual_seed(seed % 2**63)
