"""DASR: "Unsupervised Degradation Representation Learning for Blind Super-Resolution" (CVPR 2021), the training."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from contrastive_sr import networks
from contrastive_sr._checks import check_choice, check_count, check_flag, check_shape
from contrastive_sr.distributed import world_size
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.similarity import unit_vectors
from contrastive_sr.losses import Contrast, DegradationQueueLoss
from contrastive_sr.methods.base import Method, Step
from contrastive_sr.methods.compared import Compared, Comparison
from contrastive_sr.methods.layers import call_alone, feature_key
from contrastive_sr.methods.registry import register_method
from contrastive_sr.methods.weighting import TermWeight
from contrastive_sr.samples import Batch

PositivesFrom = Literal["same_image", "same_degradation"]
KEYS = {"same_image": "lr_key", "same_degradation": "lr_key_other"}  # the entry of the batch that holds the key
REPRESENTATION = "encoder.pool"  # the module of the SR network whose output is R, as (B, 256, 1, 1)
KERNEL = "degradation/kernel"
METRICS = ("positive_similarity", "negative_similarity", "queue_fill")


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
    """What the methods that contrast degradations share: the keys, the momentum encoder and the queue.

    A subclass gives :attr:`pair`.

    Args:
        name: prefix of everything that is logged.
        weights: of the terms.
        encoder: an encoder; the momentum encoder begins as a copy of it.
        temperature: tau, above 0.
        queue_size: keys in the queue.
        momentum: of the momentum encoder.
        positives_from: ``"same_image"`` or ``"same_degradation"``.
        split_lr: whether the two halves of an LR image stand for query and key where the batch has no keys.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: Mapping[str, TermWeight],
        encoder: DegradationEncoder,
        temperature: float,
        queue_size: int,
        momentum: float,
        positives_from: PositivesFrom,
        split_lr: bool,
    ) -> None:
        super().__init__(name, weights=weights)  # nothing is drawn
        check_choice(positives_from, get_args(PositivesFrom), f"{name}: positives_from")
        self.split_lr = check_flag(split_lr, f"{name}: split_lr")
        if split_lr and positives_from != "same_image":
            raise ConfigError(f"{name}: split_lr gives positives_from='same_image'; leave one of the two out.")
        self.key = KEYS[positives_from]
        self.wants = (self.key,)
        self.loss = DegradationQueueLoss(
            EncoderWithHead(encoder),
            dim=encoder.dim,
            queue_size=queue_size,
            momentum=momentum,
            temperature=temperature,
            gather=True,
        )

    @property
    def pair(self) -> EncoderWithHead:
        """What encodes the queries."""
        raise NotImplementedError

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse data without keys, and more images than the queue holds; see :meth:`Method.check_data`."""
        self._check_keys(names)
        if images > self.loss.queue_size:
            raise DataError(
                f"{self.name}: expected a batch that the queue of {self.loss.queue_size} holds, got {images} images on "
                f"{world_size()} process(es). Raise queue_size (the paper's is 8192) or lower the batch size."
            )

    def check_batch(self, batch: Batch) -> None:
        """Refuse keys that do not fit, and more images than the queue holds; see :meth:`Method.check_batch`."""
        self.check_data(batch, len(batch["lr"]) * world_size())
        images, _ = self._crops(batch)
        if images is None:
            low, high = batch[self.key].min().item(), batch[self.key].max().item()
            if not (low >= -1e-3 and high <= 1 + 1e-3):
                raise DataError(
                    f"{self.name}: expected batch[{self.key!r}] in [0, 1], got values from {low:.4g} to {high:.4g}."
                )

    def restored(self) -> None:
        """See :meth:`Method.restored`."""
        self.loss.restored()

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

    def _with_fill(self, contrast: Contrast) -> Contrast:
        """The contrast with one more metric, how full the queue is."""
        fill = self.loss.fill / self.loss.queue_size
        return contrast._replace(metrics={**contrast.metrics, "queue_fill": fill})

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """The first query, its key, and the keys of the other images, which are negatives from the next step on."""
        images, key_images = self._crops(batch)
        # Copies, in training mode: BatchNorm takes the statistics of the images at hand, as it does in a step.
        pair = copy.deepcopy(self.pair).train()
        # Before the first key the momentum encoder is not yet a copy of the encoder.
        key_encoder = copy.deepcopy(self.pair if self.loss.is_empty else self.loss.key_encoder).train()
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
        note = "untrained encoder" if self.loss.is_empty else ""
        return [Comparison("contrastive", "cosine of the vectors behind the head", parts, note)]


@register_method
class DASR(DegradationMethod):
    """DASR's training of :class:`contrastive_sr.networks.DASR`: its encoder learns by contrast and by the SR loss.

    The query is the representation R that the SR network's encoder made of the LR images in its one forward pass,
    passed through the encoder's head; the key is what the momentum encoder makes of another LR crop with the same
    degradation; the negatives are earlier keys. The contrastive term trains the encoder and its head; the host's losses
    train the SR network and, through R, the encoder too. So this method has nothing that needs an optimizer of its own.
    It holds the momentum encoder, a copy of the network's encoder from the first step on, and the queue.

    Schedule: for ``warmup_steps`` SR steps the host's own losses do not count and the encoder learns by contrast
    alone, then by both. The paper's learning rates belong to the host's scheduler: 1e-3 and, after 60 of 100 epochs,
    1e-4; then 1e-4 for 500 epochs, halved every 125.

    Where we differ: see :class:`~contrastive_sr.losses.DegradationQueueLoss`; the paper adds the L1 loss of images in
    0-255 to the contrastive loss, which for images in [0, 1] is a ``loss_weight`` of 1 / 255. In the warm-up only the
    encoder is run, not the rest of the SR network.

    Terms: ``contrastive``, whose share is measured at R (with ``split_lr``: at the weights of the encoder's last
    convolution). Metrics: ``positive_similarity``, ``negative_similarity``, ``queue_fill`` (from 0 to 1),
    ``host_factor`` (0 in the warm-up, then 1).

    Args:
        loss_weight: fixed weight of the term. If ``loss_share`` is not given either, it is the paper's 1 / 255. 0 (with
            no warm-up) is Model 1 of Table 1.
        loss_share: instead of a fixed weight, the share to keep; 1 lets contrast and pixel loss pull at R equally hard.
            At first a wrong R costs the SR image little, so that with the paper's weight the share is far above 1. If a
            share is given, the weight in the warm-up, where there is no pixel loss to take a share of, is 1.
        warmup_steps: SR steps of contrast alone.
        temperature: tau, above 0; the paper's is 0.07.
        queue_size: number of keys in the queue; the paper's is 8192.
        momentum: momentum of the momentum encoder; MoCo's is 0.999.
        positives_from: ``"same_image"``, the paper's: the key is another crop of the same image, ``batch["lr_key"]``.
            ``"same_degradation"``, ours: a crop of another image under the same degradation,
            ``batch["lr_key_other"]``, so that the content of the images does not help.
        split_lr: what to do when the batch has no ``"lr_key"``, for example because LR images come from files. True:
            cut each LR image into two halves, across its longer side; the first is encoded once more as the query and
            the second is the key. False: an error.
        name: prefix of everything that is logged.
        share_interval: number of steps from one measurement of the share to the next; each measurement takes a backward
            pass of the network.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> from contrastive_sr.methods import Methods
        >>> net = networks.DASR(channels=8, groups=1, blocks=1)
        >>> methods = Methods([DASR(queue_size=64)])
        >>> methods.attach(net)
        >>> lr, lr_key = torch.rand(2, 2, 3, 16, 16)
        >>> batch = methods.run(net, {"lr": lr, "lr_key": lr_key, "hr": torch.rand(2, 3, 64, 64)})
        >>> sorted(methods.sr_losses(batch).metrics)[:2]
        ['dasr_contrastive', 'dasr_contrastive_raw']
    """

    paper = "DASR"
    network = networks.DASR
    metrics = {"contrastive": (*METRICS, "host_factor")}  # noqa: RUF012 - never changed
    layers = (REPRESENTATION,)
    warmup_module = "encoder"

    def __init__(
        self,
        *,
        loss_weight: float | None = None,
        loss_share: float | None = None,
        warmup_steps: int = 0,
        temperature: float = 0.07,
        queue_size: int = 8192,
        momentum: float = 0.999,
        positives_from: PositivesFrom = "same_image",
        split_lr: bool = False,
        name: str = "dasr",
        share_interval: int = 25,
    ) -> None:
        if loss_weight is None and loss_share is None:
            loss_weight = 1 / 255
        check_count(warmup_steps, f"{name}: warmup_steps", at_least=0)
        if warmup_steps and loss_weight == 0:
            raise ConfigError(f"{name}: with loss_weight 0 nothing trains in the warm-up. Leave out warmup_steps.")
        weight = TermWeight(
            f"{name}_contrastive",
            loss_weight,
            loss_share,
            interval=share_interval,
            warmup_steps=warmup_steps,
            warmup_weight=1.0 if loss_weight is None else loss_weight,
            warn=False,
        )
        super().__init__(
            name,
            weights={"contrastive": weight},
            encoder=DegradationEncoder(),
            temperature=temperature,
            queue_size=queue_size,
            momentum=momentum,
            positives_from=positives_from,
            split_lr=split_lr,
        )
        self.warmup_steps = warmup_steps
        self._encoder: tuple[DegradationEncoder, ...] = ()  # in a tuple, so that it is no part of this module

    @property
    def pair(self) -> EncoderWithHead:
        """The SR network's encoder, with its head."""
        (encoder,) = self._encoder
        return EncoderWithHead(encoder)

    def check_network(self, net: nn.Module) -> None:
        """Refuse an SR network without the encoder; see :meth:`Method.check_network`."""
        if not isinstance(getattr(net, "encoder", None), DegradationEncoder):
            raise ConfigError(
                f"{self.name}: expected an SR network with a degradation encoder, contrastive_sr.networks.DASR of any "
                f"variant but 'oracle', got {type(net).__name__}. On another network take the method "
                "`DegradationContrast`; with 'oracle', `TrueKernel`."
            )

    def build(self, net: nn.Module, dry: Batch) -> None:
        """Keep the SR network's encoder at hand; see :meth:`Method.build`."""
        assert isinstance(net.encoder, DegradationEncoder)
        self._encoder = (net.encoder,)

    def terms(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """The contrastive term; in training mode momentum encoder and queue are updated."""
        pair = self.pair
        encoder = pair.encoder
        if self.training and self.loss.is_empty:
            # Now, not in build(): a host loads weights, or gives all ranks those of the first, after it.
            self.loss.key_encoder.load_state_dict(pair.state_dict())
        images, key_images = self._crops(batch)
        # Without an SR image, in the warm-up, no wrapper averages gradients over processes.
        call = nn.Module.__call__ if "sr" in batch else call_alone
        representation = batch[feature_key(REPRESENTATION)]
        points = [representation]
        if images is not None:
            # R of a half is not that of the image; the weights are what the two losses have in common.
            weight = encoder.last_convolution.weight
            representation, points = call(encoder, images.to(weight.dtype)), [weight]
        representation = representation.flatten(1).to(encoder.last_convolution.weight.dtype)  # autocast may end there
        query = call(encoder.head, representation)
        contrast = self._with_fill(self.loss.contrast(query, key_images, pair))
        factor = torch.full_like(contrast.metrics["queue_fill"], float(step.number >= self.warmup_steps))
        return {"contrastive": Contrast(contrast.loss, {**contrast.metrics, "host_factor": factor}, points)}


@register_method
class DegradationContrast(DegradationMethod):
    """DASR's contrast on an encoder of its own, beside any SR network, which it leaves alone.

    An auxiliary encoder learns the degradations of the LR images that a stock network is trained on, in the methods'
    own step. Its file (``NAME_encoder``) can be read by :class:`~contrastive_sr.embeddings.DegradationEncoder`.

    Terms: none. Metrics: ``positive_similarity``, ``negative_similarity``, ``queue_fill``. Trained parts: the encoder
    and its head (``contrast``).

    Args:
        temperature: tau, above 0; the paper's is 0.07.
        queue_size: number of keys in the queue; the paper's is 8192.
        momentum: momentum of the momentum encoder; MoCo's is 0.999.
        positives_from: as in :class:`DASR`.
        split_lr: as in :class:`DASR`.
        weights: a file with trained weights of the encoder, to start from.
        name: prefix of everything that is logged.

    Raises:
        ConfigError: an argument that makes no sense; the message says which.

    Example:
        >>> from contrastive_sr.methods import Methods
        >>> net = torch.nn.Upsample(scale_factor=4)
        >>> methods = Methods([DegradationContrast(queue_size=64, split_lr=True)])
        >>> methods.attach(net)
        >>> batch = methods.run(net, {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64)})
        >>> list(methods.auxiliary_losses(batch))
        ['degradation_contrast']
    """

    paper = "DASR"
    metrics = {"contrast": METRICS}  # noqa: RUF012 - never changed

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        queue_size: int = 8192,
        momentum: float = 0.999,
        positives_from: PositivesFrom = "same_image",
        split_lr: bool = False,
        weights: str | Path | None = None,
        name: str = "degradation",
    ) -> None:
        encoder = DegradationEncoder(weights)
        super().__init__(
            name,
            weights={},
            encoder=encoder,
            temperature=temperature,
            queue_size=queue_size,
            momentum=momentum,
            positives_from=positives_from,
            split_lr=split_lr,
        )
        self.query_encoder = EncoderWithHead(encoder)

    @property
    def pair(self) -> EncoderWithHead:
        """The encoder of this method, with its head."""
        return self.query_encoder

    def trained_parts(self) -> dict[str, nn.Module]:
        """The encoder, with its head."""
        return {f"{self.name}_encoder": self.pair.encoder}

    def auxiliary(self, batch: Batch, step: Step) -> dict[str, Contrast]:
        """``contrast``: trains the encoder; in training mode momentum encoder and queue are updated."""
        images, key_images = self._crops(batch)
        images = batch["lr"] if images is None else images
        query = self.pair(images.to(self.pair.encoder.last_convolution.weight.dtype))
        return {"contrast": self._with_fill(self.loss.contrast(query, key_images, self.pair))}


@register_method
class TrueKernel(Method):
    """Gives :class:`contrastive_sr.networks.DASR` of variant ``"oracle"`` the true kernels: Model 5 of DASR's Table 1.

    There is no contrast, and no term.

    Args:
        name: the name that messages show.

    Raises:
        ConfigError: a name that cannot be used.

    Example:
        >>> from contrastive_sr.methods import Methods
        >>> net = networks.DASR(variant="oracle", channels=8, groups=1, blocks=1)
        >>> methods = Methods([TrueKernel()])
        >>> methods.attach(net)
        >>> batch = {"lr": torch.rand(2, 3, 16, 16), "hr": torch.rand(2, 3, 64, 64), KERNEL: torch.rand(2, 21, 21)}
        >>> methods.run(net, batch)["sr"].shape
        torch.Size([2, 3, 64, 64])
    """

    paper = "DASR"
    network = partial(networks.DASR, variant="oracle")
    wants = (KERNEL,)

    def __init__(self, *, name: str = "true_kernel") -> None:
        super().__init__(name)

    def check_network(self, net: nn.Module) -> None:
        """Refuse an SR network that reads no kernels; see :meth:`Method.check_network`."""
        if getattr(net, "kernel_layers", None) is None:
            raise ConfigError(
                f"{self.name}: expected contrastive_sr.networks.DASR with variant 'oracle' as SR network, got "
                f"{type(net).__name__}{f' of variant {net.variant!r}' if hasattr(net, 'variant') else ''}."
            )

    def check_data(self, names: Collection[str], images: int) -> None:
        """Refuse data without kernels, as when each position has one of its own; see :meth:`Method.check_data`."""
        if KERNEL not in names:
            raise DataError(
                f"{self.name}: expected {KERNEL!r} in the batch, got {sorted(names)}. Let the host degrade HR images, "
                "with one kernel for each image."
            )

    def network_inputs(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The true kernels (B, k, k), as ``kernel``; see :meth:`Method.network_inputs`."""
        if set(batch) == {"lr"}:  # the dry run
            assert isinstance(net, networks.DASR)
            return {"kernel": batch["lr"].new_zeros(len(batch["lr"]), net.kernel_size, net.kernel_size)}
        self.check_data(batch, images=len(batch["lr"]))
        return {"kernel": batch[KERNEL]}

    def compared(self, batch: Batch, step: Step) -> list[Comparison]:
        """Nothing."""
        return []
