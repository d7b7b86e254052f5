"""The weight of a loss term, fixed or set by its share of the pixel loss's gradient."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, check_number
from contrastive_sr.distributed import rank, sum_over_ranks, world_size
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.methods.later import Later

DEFAULT_SHARE = 0.05
_MANY = 10  # measurements left out, of the last 50
_USED, _LEFT_OUT, _NONE = range(3)  # what became of a measurement


class TermWeight(nn.Module):
    r"""Weighs one term of the SR network's loss, and measures how strongly it pulls.

    The share of a term is the norm of its weighted gradient, divided by that of the host's pixel loss: at the SR
    images, or, for a term on layers of the SR network, at their outputs. With a fixed weight it is only measured;
    otherwise the weight is set such that the share has the value asked for. The ratio of the unweighted gradients is
    measured over the batches, of one size, of all ranks: at each of the first 25 steps, when an embedding that learns
    changes fast, and of the first 25 after the warm-up; otherwise every ``interval`` steps. For a term that is applied
    lazily, only the steps at which it is applied count, and weight and share are means over all steps. The weight
    follows the smoothed ratio; the share that is logged is that of the latest measurement. Both lag: where the ratio
    grows from measurement to measurement, the share is above the one asked for.

    Flat, black or repeated patches, of which a small batch may have nothing else, have hardly any gradient of the term
    or of the pixel loss, and must not set the weight of the patches that follow. So the ratio counts as no less than a
    quarter of its recent maximum, and the same holds for the pixel loss's gradient; the recent maximum fades by 3 % at
    each measurement. If 10 of 50 measurements are left out because of this, a warning says so, once. Where a term
    vanishes for good, the weight grows to 100 times its smallest value and no further. Where one of the two has
    no gradient from the beginning on, as with a pixel loss whose weight is 0, the weight stays 0, and a warning says
    so.

    Args:
        name: the term's name, for messages.
        weight: a fixed weight, at least 0.
        share: the share to keep, above 0. If neither is given, the share is 0.05.
        interval: number of steps from one measurement to the next.
        warmup_steps: for this many SR steps at the beginning the weight is ``warmup_weight``.
        warmup_weight: weight in these steps. 0: the term is measured and does not count.
        warn: whether to warn, once, where the share that a fixed weight gives is above 1. False for a term that does
            not reach the SR image.
        key: what a config's keys for weight and share have in front of ``weight`` and ``share``, for messages.

    Raises:
        ConfigError: both a weight and a share, or values that are not such numbers.

    Example:
        >>> TermWeight("pcl_contrastive", 0.1 / 255).at(0)
        tensor(0.0004)
    """

    MOMENTUM = 0.5
    GROWTH = 100.0  # how far a weight may rise above its least
    HOLD = 4.0  # how far a measurement may fall below those of late
    FADE = 0.97  # what is left, at the next measurement, of the largest of late
    EARLY = 25  # steps that are all measured

    def __init__(
        self,
        name: str,
        weight: float | None = None,
        share: float | None = None,
        *,
        interval: int = 5,
        warmup_steps: int = 0,
        warmup_weight: float = 0.0,
        warn: bool = True,
        key: str = "loss_",
    ) -> None:
        super().__init__()
        if weight is not None and share is not None:
            raise ConfigError(
                f"{name}: expected one of `{key}weight` (e.g. 0.0004) and `{key}share` (e.g. 0.05), got both."
            )
        self.name, self.key = name, key
        self.fixed = None if weight is None else check_number(weight, f"{name}: {key}weight", at_least=0)
        self.asked = check_number(DEFAULT_SHARE if share is None else share, f"{name}: {key}share", above=0)
        self.interval = check_count(interval, f"{name}: share_interval")
        self.warmup_steps, self.warmup_weight = warmup_steps, warmup_weight
        self.ratio: Tensor
        self.latest: Tensor
        self.largest: Tensor
        self.recent: Tensor
        self.pixel: Tensor
        self.register_buffer("ratio", torch.zeros(()))  # smoothed; 0 until measured
        self.register_buffer("latest", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()))  # of the smoothed ratios so far
        self.register_buffer("recent", torch.zeros(()))  # of the ratios themselves, of late
        self.register_buffer("pixel", torch.zeros(()))  # the largest norm of the pixel loss's gradient, of late
        self._warned = not warn or self.fixed is None  # who asks for a share above 1 gets it
        self._shares: list[Later] = []
        self._became: list[Later] = []
        self._last = deque[int](maxlen=50)  # what became of the last measurements
        self._said = self.fixed is not None  # a fixed weight follows no measurement

    @property
    def weight(self) -> Tensor:
        """The weight after the warm-up, a scalar; 0 while a share is asked for and nothing was measured."""
        if self.fixed is not None:
            return torch.full_like(self.ratio, self.fixed)
        ratio = torch.stack((self.ratio, self.recent / self.HOLD, self.largest / self.GROWTH)).amax()
        return torch.where(ratio > 0, self.asked / ratio, 0.0)

    def at(self, step: int) -> Tensor:
        """The weight in force at an SR step, a scalar."""
        return self.weight if step >= self.warmup_steps else torch.full_like(self.ratio, self.warmup_weight)

    @property
    def share(self) -> Tensor:
        """The share that this weight gave at the latest measurement, a scalar."""
        return self.weight * self.latest

    def check_pixel_loss(self, pixel_loss: Tensor | None) -> None:
        """Refuse a share without a pixel loss to take it of.

        Raises:
            ConfigError: a share is asked for and there is no pixel loss.
        """
        if pixel_loss is None and self.fixed is None:
            raise ConfigError(
                f"{self.name}: `{self.key}share` is a share of the pixel loss, and this training has none. "
                f"Give the pixel loss, or use `{self.key}weight`."
            )

    def measure(
        self, step: int, term: Tensor, pixel_loss: Tensor | None, points: Sequence[Tensor], *, every: int = 1
    ) -> None:
        """Update the ratio if it is due at this step.

        Args:
            step: number of the SR step, from 0, equal on all ranks.
            term: the unweighted term, computed from ``points``.
            pixel_loss: the host's pixel loss, weighted as the host does, computed from ``points``.
            points: the SR images (B, C, H, W), or the outputs of layers that the term is computed from; part of the
                graph.
            every: the term is applied only once in this many steps; its applications are what counts here.

        Raises:
            ConfigError: a share is asked for and there is no pixel loss.
            DataError: the pixel loss was not computed from the points.
        """
        self.check_pixel_loss(pixel_loss)
        if pixel_loss is None:
            return
        number, after_warmup = step // every, (step - self.warmup_steps) // every
        if number >= self.EARLY and not 0 <= after_warmup < self.EARLY and number % self.interval:
            return
        pixel_square = gradient_square(pixel_loss, points)
        term_square = gradient_square(term, points)
        if pixel_square is None:
            raise DataError(
                f"{self.name}: expected a pixel loss computed from batch['sr'], got one that does not depend on it. "
                "Use the tensor that run() returned, in float32, for the pixel loss."
            )
        # Mean gradients over the global batch: the same number on every rank. On one of them a term may have none.
        squares = torch.stack((torch.zeros_like(pixel_square) if term_square is None else term_square, pixel_square))
        term_square, pixel_square = sum_over_ranks(squares).unbind()
        now = (term_square / pixel_square).sqrt()
        usable = torch.isfinite(now) & (now > 0)
        pixel_norm = pixel_square.sqrt() / world_size()  # of a mean over the joined batch
        self.pixel.copy_(torch.where(usable, torch.maximum(pixel_norm, self.FADE * self.pixel), self.pixel))
        beside = self.HOLD * pixel_norm / self.pixel  # below 1: this gradient is left out
        held = now * beside.clamp(max=1)
        smoothed = torch.where(self.ratio > 0, self.MOMENTUM * self.ratio + (1 - self.MOMENTUM) * held, held)
        self.ratio.copy_(torch.where(usable, smoothed, self.ratio))
        self.latest.copy_(torch.where(usable, now, self.latest))
        self.largest.copy_(torch.maximum(self.largest, self.ratio))
        self.recent.copy_(torch.where(usable, torch.maximum(held, self.FADE * self.recent), self.recent))
        if not self._said:
            left_out = (beside < 1) | (self.HOLD * now < self.recent)
            none = torch.where(self.ratio > 0, _USED, _NONE)
            self._became.append(Later(torch.where(usable, torch.where(left_out, _LEFT_OUT, _USED), none)))
            self._look_at_measurements()
        if not self._warned:
            self._shares.append(Later(self.share))
            self._look()

    def _look(self) -> None:
        """Warn, once, of a large share; on a GPU when it has arrived, some measurements later."""
        while self._shares and self._shares[0].is_there:
            share = self._shares.pop(0).read()
            if share > 1:
                self._warned, self._shares = True, []
                if rank() == 0:
                    warnings.warn(
                        f"{self.name}: its gradient is {share:.1f} times that of the pixel loss (weight "
                        f"{self.fixed:.2g}); training may fail. Weights from papers often belong to images in "
                        "[0, 255]: divide by 255, or set a share such as 0.05 in place of the weight.",
                        stacklevel=3,
                    )

    def _look_at_measurements(self) -> None:
        """Warn, once, if there never was a usable one, or if they are left out again and again."""
        while self._became and self._became[0].is_there:
            self._last.append(int(self._became.pop(0).read()))
            if self._last.count(_NONE) == self.EARLY:
                self._said, self._became = True, []
                if rank() == 0:
                    warnings.warn(
                        f"{self.name}: expected gradients of the term and of the pixel loss, got none of one of them, "
                        f"or infinite ones, in {self.EARLY} measurements: its weight is 0, and it has no effect. Is "
                        f"the pixel loss's own weight 0? Then give `{self.key}weight` in place of `{self.key}share`.",
                        stacklevel=3,
                    )
            if self._last.count(_LEFT_OUT) == _MANY:
                self._said, self._became = True, []
                if rank() == 0:
                    warnings.warn(
                        f"{self.name}: {_MANY} of the last {len(self._last)} measurements of its gradient or the pixel "
                        "loss's are less than a quarter of those before, as on flat or repeated patches. They do not "
                        "set its weight. Are many images empty? Larger batches or patches are steadier.",
                        stacklevel=3,
                    )

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("recent", "pixel"):  # which states of earlier versions lack
            state_dict.setdefault(prefix + name, torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *args)


def gradient_square(loss: Tensor, points: Sequence[Tensor]) -> Tensor | None:
    """Square of the gradient's norm at all points together; None if the loss depends on none."""
    if not loss.requires_grad or not all(x.requires_grad for x in points):
        return None
    if all(x.dtype != torch.float16 for x in points):
        return _gradient_square(loss, points)
    # Gradients of means underflow in half precision, as GradScaler's users know. Where the scaled ones overflow, those
    # as they are do not underflow: which it is cannot be asked for without waiting for a GPU, so there are both.
    scaled, plain = _gradient_square(loss, points, scale=2.0**16), _gradient_square(loss, points)
    return None if scaled is None or plain is None else torch.where(scaled.isfinite(), scaled / 2.0**32, plain)


def _gradient_square(loss: Tensor, points: Sequence[Tensor], scale: float = 1.0) -> Tensor | None:
    upstream = torch.full_like(loss, scale)
    gradients = torch.autograd.grad(loss, list(points), upstream, retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum() if squares else None
