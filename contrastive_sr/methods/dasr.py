"""DASR: "Unsupervised Degradation Representation Learning for Blind Super-Resolution" (CVPR 2021), the training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrastive_sr import networks
from contrastive_sr._checks import check_count, check_flag, check_shape, describe
from contrastive_sr.distributed import world_size
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.similarity import unit_vectors
from contrastive_sr.losses import DegradationQueueLoss
from contrastive_sr.losses.queue import QueueContrast
from contrastive_sr.methods.base import Method, SRLosses, Term
from contrastive_sr.methods.compared import Compared, Comparison
from contrastive_sr.methods.layers import feature_key
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch

# What the key is, and the entry of the batch that holds it.
POSITIVES = {"same_image": "lr_key", "same_degradation": "lr_key_other"}
REPRESENTATION = "encoder.pool"  # the module of the SR network whose output is R, as (B, 256, 1, 1)
KERNEL = "degradation/kernel"


class EncoderWithHead(nn.Module):
    """Images to the vectors that are contrasted.

    Args:
        encoder: gives R, and has the ``head`` behind it. It is kept, not copied.
    """

    def __init__(self, encoder: DegradationEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) images to (B, 256) vectors."""
        vectors: Tensor = self.encoder.head(self.encoder(images))
        return vectors


class DegradationMethod(Method):
    """What the methods share that contrast degradations: the keys, the momentum encoder and the queue."""

    def __init__(
        self,
        name: str,
        weights: Mapping[str, TermWeight],
        encoder: DegradationEncoder,
        temperature: float,
        queue_size: int,
        momentum: float,
        positives: str,
        split_lr: bool,
    ) -> None:
        super().__init__(name, 0, weights)
        if not isinstance(positives, str) or positives not in POSITIVES:
            raise ConfigError(f"{name}: positives: expected one of {', '.join(POSITIVES)}, got {describe(positives)}.")
        self.split_lr = check_flag(split_lr, f"{name}: split_lr")
        if split_lr and positives != "same_image":
            raise ConfigError(f"{name}: split_lr gives positives='same_image'; leave one of the two out.")
        self.key = POSITIVES[positives]
        self.wants = (self.key,)
        self.loss = DegradationQueueLoss(
            EncoderWithHead(encoder), encoder.dim, queue_size, momentum, temperature, gather=True
        )

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse data without keys, and more images than the queue holds.

        Args:
            names: what the batches hold.
            images: how many images a step has, over all processes.

        Raises:
            DataError: they cannot be used.
        """
        self._check_keys(names)
        if images > self.loss.queue_size:
            raise DataError(
                f"{self.name}: expected a batch that the queue of {self.loss.queue_size} holds, got {images} images on "
                f"{world_size()} process(es). Raise queue_size (the paper's is 8192) or lower the batch size."
            )

    def check_batch(self, batch: Batch) -> None:
        """Also refuse keys that do not fit, and more images than the queue holds; see :meth:`Method.check_batch`."""
        super().check_batch(batch)
        self.check_data(batch, len(batch["lr"]) * world_size())
        images, _ = self._crops(batch)
        if images is None:
            low, high = batch[self.key].min().item(), batch[self.key].max().item()
            if not (low >= -1e-3 and high <= 1 + 1e-3):
                raise DataError(
                    f"{self.name}: expected batch[{self.key!r}] in [0, 1], got values from {low:.4g} to {high:.4g}."
                )

    def _check_keys(self, names: Collection[str]) -> None:
        if self.key not in names and not self.split_lr:
            hint = " Or set split_lr: true to contrast the two halves of each LR image." if self.key == "lr_key" else ""
            raise DataError(
                f"{self.name}: expected {self.key!r} in the batch, for each image an LR crop of the same degradation, "
                f"got {sorted(names)}. Let the host degrade HR images (`degradation` in its data settings).{hint}"
            )

    def _crops(self, batch: Batch) -> tuple[Tensor | None, Tensor]:
        """Images of the queries, None if they are the LR images themselves, and images of the keys."""
        lr = batch["lr"]
        if self.key in batch:
            check_shape(batch[self.key], (len(lr), 3, "h", "w"), f"{self.name}: batch[{self.key!r}]")
            return None, batch[self.key]
        self._check_keys(batch)
        side = 3 if lr.shape[3] >= lr.shape[2] else 2
        if lr.shape[side] < 2:
            raise DataError(f"{self.name}: expected LR images that can be cut in two, got {tuple(lr.shape)}.")
        first, second = lr.tensor_split(2, dim=side)
        return first, second

    def compared(self, batch: Batch) -> list[Comparison]:
        """The first query, its key, and the keys of the other images, which are negatives from the next step on."""
        images, key_images = self._crops(batch)
        # Copies, in training mode: BatchNorm takes the statistics of the images at hand, as it does in a step.
        pair = copy.deepcopy(self._pair()).train()
        # Before the first step the momentum encoder is not yet a copy of the encoder.
        key_encoder = copy.deepcopy(self._pair() if self.step.value == 0 else self.loss.key_encoder).train()
        query, *_ = unit_vectors(pair(batch["lr"] if images is None else images))
        similarities = (unit_vectors(key_encoder(key_images)) @ query).tolist()
        kernels = batch.get(KERNEL)

        def part(label: str, role: str, image: Tensor, similarity: float | None, index: int) -> Compared:
            kernel = {} if kernels is None else {"blur kernel": (kernels[index] / kernels.max()).expand(3, -1, -1)}
            return Compared(label, role, image.clamp(0, 1), similarity, kernel)

        parts = [part("query", "anchor", (batch["lr"] if images is None else images)[0], None, 0)]
        for index, similarity in enumerate(similarities):
            label, role = ("its key", "positive") if index == 0 else (f"key {index + 1}", "negative")
            parts.append(part(label, role, key_images[index], similarity, index))
        return [Comparison("contrastive", "cosine of the vectors behind the head", parts, self._untrained())]

    def _pair(self) -> EncoderWithHead:
        """What encodes the queries."""
        raise NotImplementedError

    def _untrained(self) -> str:
        return "untrained encoder" if self.step.value == 0 else ""

    def _figures(self, contrast: QueueContrast | None) -> dict[str, Tensor]:
        """What to log; zeros before the first contrast."""
        fill = self.loss.fill / self.loss.queue_size
        zero = torch.zeros_like(fill)
        return {
            "positive_similarity": zero if contrast is None else contrast.positive_similarity,
            "negative_similarity": zero if contrast is None else contrast.negative_similarity,
            "queue_fill": fill,
        }


class DASR(DegradationMethod):
    """DASR's training of :class:`contrastive_sr.networks.DASR`: its encoder learns by contrast and by the SR loss.

    The query is the representation R that the SR network's encoder made of the LR images, in its one forward pass,
    behind the encoder's head; the key is that of another LR crop of the same degradation by the momentum encoder; the
    negatives are earlier keys. The contrastive term trains the encoder and its head; the host's losses train the SR
    network and, through R, the encoder too. So this method has nothing for an optimizer of its own. It holds the
    momentum encoder, a copy of the network's encoder from the first step on, and the queue.

    Schedule: for ``warmup_steps`` SR steps the host's own losses do not count and the encoder learns by contrast
    alone, then by both. The paper's learning rates belong to the host's scheduler: 1e-3 and, after 60 of 100 epochs,
    1e-4; then 1e-4 for 500 epochs, halved every 125.

    Where we differ: see :class:`~contrastive_sr.losses.DegradationQueueLoss`; the paper adds L1 of images in 0-255 to
    the contrastive loss, which for images in [0, 1] is ``loss_weight`` 1 / 255.

    Terms: ``contrastive``, whose share is measured at R (with ``split_lr``: at the weights of the encoder's last
    convolution). Figures: ``positive_similarity``, ``negative_similarity``, ``queue_fill`` (from 0 to 1),
    ``host_factor`` (0 in the warm-up, then 1).

    Args:
        loss_weight: fixed weight of the term; the paper's is 1 / 255. 0 (with no warm-up) is Model 1 of Table 1.
        loss_share: instead, the share to keep; 1 lets contrast and pixel loss pull at R equally hard. What the SR
            image loses by a wrong R is little at first, so that with the paper's weight the share is far above 1.
        warmup_steps: SR steps of contrast alone.
        temperature: tau, above 0; the paper's 0.07.
        queue_size: keys in the queue; the paper's 8192.
        momentum: of the momentum encoder; MoCo's 0.999.
        positives: ``"same_image"``, the paper's: the key is another crop of the same image, ``batch["lr_key"]``.
            ``"same_degradation"``, ours: a crop of another image under the same degradation,
            ``batch["lr_key_other"]``, so that what the images show is of no help.
        split_lr: what to do without ``"lr_key"`` in the batch, as when LR images come from files. True: cut each LR
            image into two halves, across its longer side; the first is encoded once more as the query and the second
            is the key. False: an error.
        name: prefix of everything that is logged.
        share_interval: steps from one measurement of the share to the next; each is a backward pass of the network.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> from contrastive_sr import networks
        >>> net = networks.DASR(channels=8, groups=1, blocks=1)
        >>> method = DASR(loss_weight=1 / 255, queue_size=64, warmup_steps=100)
        >>> method.attach(net)
        >>> lr, lr_key = torch.rand(2, 2, 3, 16, 16)
        >>> batch = method.run(net, {"lr": lr, "lr_key": lr_key, "hr": torch.rand(2, 3, 64, 64)})
        >>> losses = method.sr_losses(batch)
        >>> list(losses.terms), losses.host_factor
        (['dasr_contrastive'], 0)
    """

    layers = (REPRESENTATION,)

    def __init__(
        self,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        warmup_steps: int = 0,
        temperature: float = 0.07,
        queue_size: int = 8192,
        momentum: float = 0.999,
        positives: str = "same_image",
        split_lr: bool = False,
        name: str = "dasr",
        share_interval: int = 25,
    ) -> None:
        weight = TermWeight(f"{name}_contrastive", loss_weight, loss_share, share_interval, warn=False)
        super().__init__(
            name,
            {"contrastive": weight},
            DegradationEncoder(),
            temperature,
            queue_size,
            momentum,
            positives,
            split_lr,
        )
        self.warmup_steps = check_count(warmup_steps, f"{name}: warmup_steps", at_least=0)
        if self.warmup_steps and loss_weight == 0:
            raise ConfigError(f"{name}: with loss_weight 0 nothing trains in the warm-up. Leave out warmup_steps.")
        self._network_encoder: tuple[DegradationEncoder, ...] = ()  # a tuple, so that it is no part of this module

    def attach(self, net: nn.Module) -> None:
        """Check that the SR network has the encoder; see :meth:`Method.attach`.

        Raises:
            ConfigError: it has none.
        """
        _encoder_of(net, self.name)

    def run(self, net: Callable[[Tensor], Tensor], batch: Batch, layers: Sequence[str] = ()) -> dict[str, Tensor]:
        """Super-resolve the batch, and keep R; see :meth:`Method.run`.

        Args:
            net: a :class:`contrastive_sr.networks.DASR`, wrapped for several processes or not.
            batch: ``"lr"``, ``"hr"``, and ``"lr_key"`` or ``"lr_key_other"`` (B, 3, h, w), RGB in [0, 1].
            layers: as in :meth:`Method.run`.

        Raises:
            ConfigError: a network without the encoder.
            DataError: no keys and no ``split_lr``, or in the first call more images than the queue holds.
        """
        self._network_encoder = (_encoder_of(net, self.name),)
        return super().run(net, batch, layers)

    def _pair(self) -> EncoderWithHead:
        (encoder,) = self._network_encoder
        return EncoderWithHead(encoder)

    @classmethod
    def example(cls, scale: int) -> tuple[Method, nn.Module | None]:
        """With its network; see :meth:`Method.example`."""
        return super().example(scale)[0], networks.DASR(scale=scale)

    def terms(self, batch: Batch) -> dict[str, Term]:
        """The contrastive term; in training mode momentum encoder and queue move on.

        Args:
            batch: what :meth:`run` returned.
        """
        pair = self._pair()
        encoder = pair.encoder
        if self.training and self.step.value == 0:
            # Now, not in attach(): a host loads weights, or gives all ranks those of the first, after it.
            self.loss.key_encoder.load_state_dict(pair.state_dict())
        images, key_images = self._crops(batch)
        representation = batch[feature_key(REPRESENTATION)]
        points = [representation]
        if images is not None:
            # R of a half is not that of the image; the weights are what the two losses have in common.
            representation, points = encoder(images), [list(encoder.body.parameters())[-3]]
        contrast = self.loss.contrast(encoder.head(representation.flatten(1)), key_images, pair)
        figures = self._figures(contrast)
        figures["host_factor"] = torch.full_like(figures["queue_fill"], float(self.step.value >= self.warmup_steps))
        return {"contrastive": Term(contrast.loss, figures, points)}


class DegradationContrast(DegradationMethod):
    """DASR's contrast on an encoder of its own, beside any SR network, which it leaves alone.

    An auxiliary encoder learns the degradations of the LR images that a stock network is trained on, in the methods'
    own step. Its file (``NAME_encoder``) can be read by :class:`~contrastive_sr.embeddings.DegradationEncoder`.

    Terms: none. Figures: ``positive_similarity``, ``negative_similarity``, ``queue_fill``. Trained parts: the encoder
    and its head (``contrast``).

    Args:
        temperature: tau, above 0; the paper's 0.07.
        queue_size: keys in the queue; the paper's 8192.
        momentum: of the momentum encoder; MoCo's 0.999.
        positives: as in :class:`DASR`.
        split_lr: as in :class:`DASR`.
        weights: a file with trained weights of the encoder to start from.
        name: prefix of everything that is logged.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> method = DegradationContrast(queue_size=64, split_lr=True)
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> batch = method.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(method.auxiliary_losses(batch)), method.sr_losses(batch).terms
        (['degradation_contrast'], {})
    """

    def __init__(
        self,
        temperature: float = 0.07,
        queue_size: int = 8192,
        momentum: float = 0.999,
        positives: str = "same_image",
        split_lr: bool = False,
        weights: str | Path | None = None,
        name: str = "degradation",
    ) -> None:
        encoder = DegradationEncoder(weights)
        super().__init__(name, {}, encoder, temperature, queue_size, momentum, positives, split_lr)
        self.pair = EncoderWithHead(encoder)
        self._latest: QueueContrast | None = None

    def _pair(self) -> EncoderWithHead:
        return self.pair

    def trained_parts(self) -> dict[str, nn.Module]:
        """The encoder, with its head."""
        return {f"{self.name}_encoder": self.pair.encoder}

    def auxiliary_terms(self, batch: Batch) -> dict[str, Tensor]:
        """``contrast``: trains the encoder; in training mode momentum encoder and queue move on.

        Args:
            batch: what :meth:`run` returned.
        """
        images, key_images = self._crops(batch)
        contrast = self.loss.contrast(self.pair(batch["lr"] if images is None else images), key_images, self.pair)
        self._latest = contrast._replace(loss=contrast.loss.detach())
        return {"contrast": contrast.loss}

    def terms(self, batch: Batch) -> dict[str, Term]:
        """None."""
        return {}

    def sr_losses(self, batch: Batch, pixel_loss: Tensor | None = None) -> SRLosses:
        """No terms, and the figures of the auxiliary step; see :meth:`Method.sr_losses`."""
        losses = super().sr_losses(batch, pixel_loss)
        losses.logs.update({f"{self.name}_{key}": value for key, value in self._figures(self._latest).items()})
        return losses


class TrueKernel(Method):
    """Gives :class:`contrastive_sr.networks.DASR` of variant ``"oracle"`` the true kernels: Model 5 of DASR's Table 1.

    There is no contrast, and no term. It must be the first of ``methods``, since it calls the network.

    Args:
        name: the name that messages show.

    Raises:
        ConfigError: a name that cannot be used.

    Example:
        >>> from contrastive_sr import networks
        >>> net = networks.DASR(variant="oracle", channels=8, groups=1, blocks=1)
        >>> batch = {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64), KERNEL: torch.rand(2, 21, 21)}
        >>> TrueKernel().run(net, batch)["sr"].shape
        torch.Size([2, 3, 64, 64])
    """

    wants = (KERNEL,)

    def __init__(self, name: str = "true_kernel") -> None:
        super().__init__(name, 0, {})

    def attach(self, net: nn.Module) -> None:
        """Check that the SR network reads kernels; see :meth:`Method.attach`.

        Raises:
            ConfigError: it does not.
        """
        bare = _bare(net)
        if getattr(bare, "kernel_layers", None) is None:
            raise ConfigError(
                f"{self.name}: expected contrastive_sr.networks.DASR with variant 'oracle' as SR network, got "
                f"{type(bare).__name__}{f' of variant {bare.variant!r}' if hasattr(bare, 'variant') else ''}."
            )

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse data without kernels.

        Args:
            names: what the batches hold.
            images: how many images a step has.

        Raises:
            DataError: no kernels, as when each position has one of its own.
        """
        if KERNEL not in names:
            raise DataError(
                f"{self.name}: expected {KERNEL!r} in the batch, got {sorted(names)}. Let the host degrade HR images, "
                "with one kernel for each image."
            )

    @classmethod
    def example(cls, scale: int) -> tuple[Method, nn.Module | None]:
        """With its network; see :meth:`Method.example`."""
        return cls(), networks.DASR(scale=scale, variant="oracle")

    def compared(self, batch: Batch) -> list[Comparison]:
        """Nothing."""
        return []

    def run(self, net: Callable[..., Tensor], batch: Batch, layers: Sequence[str] = ()) -> dict[str, Tensor]:
        """Super-resolve the batch by ``net(lr, kernel=...)``; see :meth:`Method.run`.

        Args:
            net: the SR network.
            batch: also ``"degradation/kernel"`` (B, k, k).
            layers: as in :meth:`Method.run`; none can be read here.

        Raises:
            DataError: no kernels in the batch, as when each position has one of its own.
        """
        self.check_data(batch, images=1)
        return super().run(partial(net, kernel=batch[KERNEL]), batch, layers)

    def terms(self, batch: Batch) -> dict[str, Term]:
        """None."""
        return {}


def _bare(net: Callable[[Tensor], Tensor]) -> object:
    """The SR network inside of its wrapper for several processes."""
    return net.module if isinstance(net, (DataParallel, DistributedDataParallel)) else net


def _encoder_of(net: Callable[[Tensor], Tensor], name: str) -> DegradationEncoder:
    bare = _bare(net)
    encoder = getattr(bare, "encoder", None)
    if not isinstance(encoder, DegradationEncoder):
        kind = type(bare).__name__ if isinstance(bare, nn.Module) else describe(bare)
        raise ConfigError(
            f"{name}: expected an SR network with a degradation encoder, contrastive_sr.networks.DASR of any variant "
            f"but 'oracle', got {kind}. On another network take the method `DegradationContrast`; with 'oracle', "
            "`TrueKernel`."
        )
    return encoder
