"""What a method is: what a paper adds to ordinary SR training, without a framework."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from contrastive_sr._checks import check_count, describe
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import Contrast
from contrastive_sr.methods.compared import Comparison
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch


@dataclass(frozen=True)
class Step:
    """A training step, as a method sees it.

    Attributes:
        number: how many SR steps were done before it, without those in which other methods warmed up and this one not.
        seed: seed of the method's random draws in this step; different for each method, step and process.

    Example:
        >>> draws = Step(number=7, seed=3).generator("cpu")
        >>> torch.rand(1, generator=draws) == torch.rand(1, generator=Step(7, seed=3).generator("cpu"))
        tensor([True])
    """

    number: int
    seed: int = 0

    def generator(self, device: torch.device | str) -> torch.Generator:
        """A new source of the step's draws, on the device; each call gives one that starts afresh."""
        return torch.Generator(device).manual_seed(self.seed)


class Method(nn.Module):
    """A paper's addition to SR training. It provides what is specific to the paper; the engine drives it.

    Only the engine, :class:`~contrastive_sr.methods.Methods`, calls the SR network, counts the steps, gives each step
    its random draws, weights the terms, logs, and checks what a method returns. A subclass overrides some of the hooks
    below; most methods need only :meth:`terms`, and :meth:`auxiliary` if they have parts to train. All of a method's
    state is in parameters and persistent buffers, so that a training can be resumed from ``state_dict()``.

    Attributes:
        layers: names of the SR network's modules whose outputs the method reads, as ``batch["features/<name>"]``.
        wants: names of what it reads from a batch besides ``"lr"`` and ``"hr"``, such as ``"lr_key"``, for hosts that
            can make it. A host that cannot make it leaves it out.
        network: makes the SR network that the method is for, called as ``network(scale=4)``. None: the method takes any
            network.
        warmup_steps: for this many SR steps at the beginning the host's own losses do not count, and only what this
            method trains learns.
        warmup_module: name of the only module of the SR network that is run in these steps, on the LR images. It
            contains all ``layers``. None: the whole network is run. If the terms call any other part of the network in
            these steps, they do so through :func:`~contrastive_sr.methods.layers.call_alone`, which averages gradients
            over processes.
        metrics: names of the metrics of each term, and of each auxiliary loss, that may be left out; the engine then
            logs zeros in their place.

    Args:
        name: prefix of everything that is logged.
        seed: seed of its random draws.
        weights: one :class:`~contrastive_sr.methods.TermWeight` for each term, by the term's name.
        every: the method takes part only once in this many SR steps, beginning with the first, and its terms count this
            many times as much there ("lazy regularization", as in StyleGAN2, arXiv 1912.04958, appendix B). In between
            it costs nothing, and its parts do not learn.

    Raises:
        ConfigError: a name, of the method or of a term, that is empty or contains "loss", ".", "/" or a space; a weight
            that is not a ``TermWeight``; or a number of steps below 1.
    """

    layers: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    network: Callable[..., nn.Module] | None = None
    warmup_steps: int = 0
    warmup_module: str | None = None
    metrics: Mapping[str, Sequence[str]] = {}

    def __init__(
        self, name: str, *, seed: int = 0, weights: Mapping[str, TermWeight] | None = None, every: int = 1
    ) -> None:
        super().__init__()
        if not _is_word(name):
            raise ConfigError(f"name: expected a word without 'loss', dots, slashes and spaces, got {name!r}.")
        for term, weight in (weights or {}).items():
            if not _is_word(term) or not isinstance(weight, TermWeight):
                raise ConfigError(
                    f"{name}: weights: expected a TermWeight for each term, by a word without 'loss', dots, slashes "
                    f"and spaces, got {term!r}: {describe(weight)}."
                )
        self.name = name
        self.seed = check_count(seed, f"{name}: seed", at_least=0)
        self.weights = nn.ModuleDict(weights or {})
        self.every = check_count(every, f"{name}: every")

    def check_network(self, net: nn.Module) -> None:
        """Refuse an SR network that this method cannot train; most methods take any.

        Args:
            net: the network, without a wrapper for several processes.

        Raises:
            ConfigError: it cannot be used.
        """

    def network_inputs(self, net: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """What the SR network is called with besides the LR images, by keyword; most methods add nothing.

        Args:
            net: the network, without a wrapper for several processes.
            batch: the batch of a step; for a dry run, before training, ``"lr"`` alone.

        Raises:
            DataError: the batch lacks what the network needs.
        """
        return {}

    def build(self, net: nn.Module, dry: Batch) -> None:
        """Make the parts whose shapes depend on the SR network; called once, before optimizers and wrappers are made.

        Args:
            net: the network, without a wrapper for several processes.
            dry: with ``layers``, the batch of a dry run: ``"lr"`` (1, 3, h, w), ``"sr"`` and ``"features/<name>"``.

        Raises:
            ConfigError: the network does not fit.
        """

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse training data that this method cannot use, before there is a batch; most methods take any.

        Args:
            names: what the batches will hold.
            images: how many images a step will have, over all processes.

        Raises:
            DataError: something that the method needs will be missing, or there are more images than it can hold.
        """

    def check_batch(self, batch: Batch) -> None:
        """Refuse a first batch that this method cannot train on.

        Args:
            batch: ``"lr"`` and ``"hr"``, RGB in [0, 1], whose shapes are known to fit each other, and whatever else the
                batch holds.

        Raises:
            DataError: images that are missing, or that it cannot take.
        """

    def follow(self, net: nn.Module, step: Step) -> None:
        """See the SR network at the beginning of a training step, as the optimizer left it; most methods ignore it.

        Args:
            net: the network, without a wrapper for several processes.
            step: the step.
        """

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The losses that train the method's own parts, by name; none unless it has such parts.

        Args:
            batch: the batch of the step, with ``"sr"`` and ``"features/<name>"``, all detached from the SR network.
            step: the step.
        """
        return {}

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The unweighted terms of the SR network's loss, by the names in ``weights``.

        A term that is not active yet may be left out.

        Args:
            batch: the batch of the step, with ``"sr"`` and ``"features/<name>"``, part of the SR network's graph.
            step: the step.
        """
        return {}

    def restored(self) -> None:
        """Forget what is kept beside buffers: the engine has put them back as they were before this method's losses.

        It does so in eval mode, and where these were not finite (``skip_nonfinite``); most methods keep nothing.
        """

    def trained_parts(self) -> dict[str, nn.Module]:
        """The networks this method trains that are of use beyond this training, by file label.

        BatchNorm's running statistics in them are averaged over the processes at each step.
        """
        return {}

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """What this method compares in a step, for the first image of a batch, for a person to look at.

        Called in eval mode and without gradients; no state may move.

        Args:
            batch: the batch of the step, with ``"sr"``.
            step: the step.

        Returns:
            One :class:`~contrastive_sr.methods.Comparison` for each anchor; none if the method compares nothing.

        Raises:
            ConfigError: a method that does not implement this.
        """
        raise ConfigError(
            f"{self.name}: {type(self).__name__} does not say what it compares. Give the class a method "
            "compared(batch, step) that returns a list of contrastive_sr.methods.Comparison."
        )


def _is_word(name: object) -> bool:
    # Hosts sum every log entry whose name holds "loss", and state dict keys are split at dots.
    return isinstance(name, str) and name != "" and "loss" not in name and not any(c in name for c in "./ ")
