"""DASR: "Unsupervised Degradation Representation Learning for Blind Super-Resolution" (CVPR 2021)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_flag, check_module, check_number, check_shape, describe
from contrastive_sr.distributed import average_statistics_over_ranks, gather_rows, reduce_over_ranks, unwrapped
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.functional.graphs import outside_graphs
from contrastive_sr.functional.precision import at_least_float32
from contrastive_sr.functional.queue import queue_nce
from contrastive_sr.functional.reduction import Reduction, check_reduction
from contrastive_sr.functional.similarity import unit_vectors
from contrastive_sr.losses.contrast import Contrast


class DegradationQueueLoss(nn.Module):
    r"""Tells the other crop of an image from a queue of earlier crops, so that an encoder learns degradations.

    .. math:: \mathcal{L} = \frac{1}{B} \sum_i -\log \frac{\exp(q_i \cdot k_i/\tau)}
        {\exp(q_i \cdot k_i/\tau) + \sum_j \exp(q_i \cdot u_j/\tau)}

    DASR eq. 3 in the reading of :func:`~contrastive_sr.functional.queue_nce`, trained like MoCo v2. Keys come from a
    momentum encoder, a copy of the encoder whose parameters follow the encoder's as a moving average. The caller
    encodes the query. In training mode, one call then makes the momentum update, encodes the keys (without gradient),
    computes the loss against the keys of earlier calls, and puts the new keys into the queue, where they replace the
    oldest ones. Slots not yet filled are masked, so the first call gives 0. In eval mode nothing is updated: the loss
    is computed against the queue as it is.

    All state is in ``state_dict()``: momentum encoder, ``queue`` (K, dim) of unit vectors, ``pointer`` (the slot to be
    written next) and ``fill`` (how many slots hold a key). BatchNorm in the momentum encoder sees the statistics of the
    batch of keys, as BatchNorm in the encoder sees those of the queries; its running statistics are its own, not a
    moving average of the encoder's; with ``gather`` they are averaged over the ranks. Of an encoder in half precision
    it is a float32 copy. The loss is a graph break under
    ``torch.compile``, because the place where the queue is written changes with each call.

    Args:
        encoder: maps (B, ...) images to (B, dim) vectors. It is copied, not kept.
        dim: number of features of a vector; the paper's is 256.
        queue_size: K, number of keys in the queue; the paper's is 8192. It need not be a multiple of the batch size.
        momentum: of the momentum encoder, from 0 to 1; MoCo's is 0.999.
        temperature: tau, above 0; the paper's is 0.07.
        gather: under torch.distributed, whether the keys of all ranks enter the queue, in the order of the ranks, so
            that all ranks hold the same queue; the mean of the ranks' losses then equals the loss of one process on the
            joined batch. Use it whenever you train on several ranks: otherwise each rank fills a queue of its own,
            which DistributedDataParallel overwrites with the first rank's. A rank without images passes (0, dim)
            queries and (0, ...) images: nothing is encoded, its loss is 0. Every rank must make the call.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ConfigError: an argument that makes no sense.

    Example:
        >>> encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> loss = DegradationQueueLoss(encoder, dim=8, queue_size=32)
        >>> crops = torch.rand(2, 4, 3, 16, 16)  # two crops of each of four images
        >>> loss(encoder(crops[0]), crops[1], encoder)  # the queue is still empty
        tensor(0., grad_fn=<MeanBackward0>)
        >>> loss(encoder(crops[0]), crops[1], encoder) > 0
        tensor(True)
        >>> loss.fill
        tensor(8)
    """

    paper = "DASR"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        dim: int = 256,
        queue_size: int = 8192,
        momentum: float = 0.999,
        temperature: float = 0.07,
        gather: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.dim = check_count(dim, f"{name}(dim)")
        self.queue_size = check_count(queue_size, f"{name}(queue_size)")
        self.momentum = check_number(momentum, f"{name}(momentum)", at_least=0)
        if self.momentum > 1:
            raise ConfigError(f"{name}(momentum): expected a number from 0 to 1, got {momentum}.")
        self.temperature = check_number(temperature, f"{name}(temperature)", above=0)
        self.gather = check_flag(gather, f"{name}(gather)")
        check_reduction(reduction, f"{name}(reduction)")
        self.reduction: Reduction = reduction
        bare = unwrapped(check_module(encoder, f"{name}(encoder)"))
        self.key_encoder = copy.deepcopy(bare).requires_grad_(False)
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in bare.parameters()):
            self.key_encoder.float()  # in half precision a slow average would not move at all
        self.queue: Tensor
        self.pointer: Tensor
        self.fill: Tensor
        self.register_buffer("queue", torch.zeros(queue_size, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("fill", torch.zeros((), dtype=torch.long))
        self._position: tuple[int, int] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no key has entered the queue yet."""
        return self._read_position()[1] == 0

    def forward(self, query: Tensor, key_images: Tensor, encoder: nn.Module) -> Tensor:
        """The loss; in training mode the momentum encoder and the queue are updated.

        Args:
            query: (B, dim) vectors that ``encoder`` made from one crop of each image, with their graph.
            key_images: (B, ...) the other crops, as the encoder takes them.
            encoder: the encoder that made the queries, for the momentum update; it may be wrapped in
                DistributedDataParallel.

        Returns:
            A scalar of at least 0, or (B,) with ``reduction="none"``; its gradient reaches ``query`` alone.

        Raises:
            DataError: vectors of another shape, a different number of key images, or no images (with ``gather``: on all
                ranks).
            ConfigError: an encoder whose parameters do not have the shapes of the momentum encoder's.
        """
        return self.contrast(query, key_images, encoder).loss

    @outside_graphs
    def contrast(self, query: Tensor, key_images: Tensor, encoder: nn.Module) -> Contrast:
        """The loss, with mean cosines of this rank's queries. Use it in place of :meth:`forward`, with its arguments.

        The cosines are ``positive_similarity`` to their keys and ``negative_similarity`` to the keys in the queue; 0
        where there is nothing to compare.
        """
        self._check(query, key_images)
        if self.training:
            self._follow(unwrapped(encoder))
        query = at_least_float32(query)
        keys = self._encode(key_images)
        joined = gather_rows(keys, gradient=False)[0] if self.gather else keys
        if len(joined) == 0:
            raise DataError(f"{type(self).__name__}: expected at least one image, got none on any rank.")
        values = self._contrast(query, keys) if len(query) else query.sum(1)
        loss = reduce_over_ranks(values, len(joined) if self.gather else None, self.reduction)
        positive, negative = self._similarities(query, keys)  # to the queue as the loss saw it
        if self.training:
            self._enqueue(joined)
            if self.gather:
                average_statistics_over_ranks(self.key_encoder)
        return Contrast(loss, {"positive_similarity": positive, "negative_similarity": negative})

    def _check(self, query: Tensor, key_images: Tensor) -> None:
        name = type(self).__name__
        if not (self.gather and isinstance(query, Tensor) and query.shape == (0, self.dim)):
            check_shape(query, ("B", self.dim), f"{name}(query)")
        floating = isinstance(key_images, Tensor) and key_images.is_floating_point()
        if not floating or key_images.shape[:1] != query.shape[:1]:
            raise DataError(
                f"{name}(key_images): expected one floating-point image for each of {len(query)} queries, got "
                f"{describe(key_images)}."
            )

    @torch.no_grad()
    def _follow(self, encoder: nn.Module) -> None:
        """The momentum update."""
        if not isinstance(encoder, nn.Module):
            raise ConfigError(f"{type(self).__name__}(encoder): expected the nn.Module, got {describe(encoder)}.")
        own, new = list(self.key_encoder.parameters()), list(encoder.parameters())
        if [p.shape for p in own] != [p.shape for p in new]:
            raise ConfigError(
                f"{type(self).__name__}(encoder): expected the encoder that this loss was made with, or one of its "
                f"shape: {len(own)} parameters, {sum(p.numel() for p in own)} numbers. Got {len(new)} parameters, "
                f"{sum(p.numel() for p in new)} numbers."
            )
        for parameter, target in zip(own, new, strict=True):
            parameter.lerp_(target.to(parameter), 1 - self.momentum)

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        """Unit keys (B, dim), as the queue holds them."""
        if len(images) == 0:
            return self.queue[:0]
        own = next((p.dtype for p in self.key_encoder.parameters()), images.dtype)
        keys = self.key_encoder(images.to(own))
        check_shape(keys, (len(images), self.dim), f"{type(self).__name__}: what the encoder made of the key images")
        return unit_vectors(at_least_float32(keys)).to(self.queue.dtype)

    def _contrast(self, query: Tensor, keys: Tensor) -> Tensor:
        """The loss of each query."""
        _, fill = self._read_position()
        valid = torch.arange(self.queue_size, device=self.queue.device) < fill if fill < self.queue_size else None
        # A copy, because the backward pass needs the queue as it was.
        queue = self.queue.clone()
        return queue_nce(
            unit_vectors(query), keys, queue, self.temperature, valid=valid, reduction="none", normalize=False
        )

    @torch.no_grad()
    def _similarities(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cosines between queries and keys, and between queries and the queue."""
        unit = unit_vectors(query).to(keys.dtype)
        # Slots that hold no key are zero.
        filled = max(self._read_position()[1], 1)
        with torch.autocast(query.device.type, enabled=False):
            positive = (unit * keys).sum() / max(len(unit), 1)
            negative = unit.sum(0) @ self.queue.sum(0) / (max(len(unit), 1) * filled)
        return positive, negative

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        pointer, fill = self._read_position()
        kept = keys[-self.queue_size :]
        # One that is not finite makes this step's loss so, and must not make those to come: zeros, a cosine of 0.
        kept = torch.where(kept.isfinite().all(1, keepdim=True), kept, 0.0)
        start = pointer + len(keys) - len(kept)
        slots = (torch.arange(len(kept), device=self.queue.device) + start) % self.queue_size
        self.queue.index_copy_(0, slots, kept)
        self._position = ((pointer + len(keys)) % self.queue_size, min(fill + len(keys), self.queue_size))
        self.pointer.fill_(self._position[0])
        self.fill.fill_(self._position[1])

    def _read_position(self) -> tuple[int, int]:
        """Pointer and fill level, which wait for the device only once after a state was loaded."""
        if self._position is None:
            self._position = int(self.pointer.item()), int(self.fill.item())
        return self._position

    def restored(self) -> None:
        """To be called where buffers were written from outside, other than by ``load_state_dict``."""
        self._position = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.restored()
