"""Measures an SR network on pairs of images, and on photos that have no HR image."""

from __future__ import annotations

import ctypes
import gc
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contrastive_sr._checks import check_count, describe_error
from contrastive_sr.data.images import UInt8Image, as_image, as_tensor
from contrastive_sr.degradations.functional import bicubic_downsample, bicubic_upsample
from contrastive_sr.errors import ConfigError, ContrastiveSRError, DataError, NonFiniteError
from contrastive_sr.evaluation.metrics import psnr_y, ssim_y
from contrastive_sr.evaluation.tiles import check_scaled, check_tiles, super_resolve_in_tiles

Network = Callable[[Tensor], Tensor]
Metric = Callable[[UInt8Image, UInt8Image], float | None]
"""Value of an SR image and its HR image; None where there is none, such as NIQE of a small image."""

_TRIAL = 64


@dataclass(frozen=True)
class NoReference:
    """A metric of the SR image alone, which photos without an HR image have too.

    Args:
        measure: from an SR image, (H, W, 3) uint8, to its value, or None where it has none.

    Example:
        >>> import numpy as np
        >>> mean = NoReference(lambda sr: float(sr.mean()))
        >>> black = np.zeros((8, 8, 3), dtype=np.uint8)
        >>> mean(black, black + 9)
        0.0
    """

    measure: Callable[[UInt8Image], float | None]

    def __call__(self, sr: UInt8Image, hr: UInt8Image) -> float | None:
        return self.measure(sr)


class Pair(NamedTuple):
    """An LR image and what it should become.

    Attributes:
        name: for tables and messages.
        lr: (1, 3, h, w), RGB in [0, 1].
        hr: (s h, s w, 3), RGB, uint8; None for a photo of which nobody knows it.
    """

    name: str
    lr: Tensor
    hr: UInt8Image | None = None


class Score(NamedTuple):
    """What was measured on one image.

    Attributes:
        name: of the pair.
        width: of the SR image, in pixels.
        height: of the SR image, in pixels.
        values: ``psnr_y``, ``ssim_y``, the further metrics by name, ``seconds`` and ``memory_mib``; None where there
            is no value.
        failed: why a metric that failed has no value, by its name.
    """

    name: str
    width: int
    height: int
    values: dict[str, float | None]
    failed: Mapping[str, str] = {}


def bicubic(scale: int) -> Network:
    """The network that needs no training: bicubic enlargement as MATLAB does it. At scale 1 it is the LR image itself.

    Example:
        >>> bicubic(4)(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 3, 32, 32])
    """
    check_count(scale, "bicubic(scale)")
    return lambda lr: bicubic_upsample(lr, scale)


def bicubic_pair(name: str, hr: UInt8Image, scale: int) -> Pair:
    """The pair that papers test on: HR cropped at the right and bottom to a multiple of the scale, LR by bicubic
    downsampling with antialiasing as MATLAB's ``imresize`` does, rounded to 8 bits.

    Args:
        name: of the image.
        hr: (H, W, 3), RGB, uint8.
        scale: the downsampling factor, at least 2.

    Raises:
        DataError: an image of another shape, or smaller than twice the scale.

    Example:
        >>> import numpy as np
        >>> pair = bicubic_pair("grey", np.full((33, 42, 3), 128, dtype=np.uint8), 4)
        >>> pair.lr.shape, pair.hr.shape
        (torch.Size([1, 3, 8, 10]), (32, 40, 3))
    """
    hr = cropped(hr, scale)
    lr = bicubic_downsample(as_tensor(hr), scale)
    return Pair(name, (lr.clamp(0, 1) * 255).round() / 255, hr)


def cropped(hr: UInt8Image, scale: int) -> UInt8Image:
    """(H, W, 3) without the rows at the bottom and the columns at the right beyond a multiple of the scale."""
    height, width = (length // scale * scale for length in hr.shape[:2])
    return hr[:height, :width]


def check_network(net: Network, scale: int, device: torch.device | str = "cpu") -> None:
    """Run a network on a small grey image, so that one that cannot be used is refused before long work.

    Raises:
        ConfigError: it fails, is in training mode, or enlarges by another factor than the scale.
        NonFiniteError: it gives NaN or infinity.
    """
    if isinstance(net, nn.Module) and net.training:
        raise ConfigError(
            f"Expected a network in evaluation mode, got {type(net).__name__} in training mode. net.eval()"
        )
    with torch.inference_mode():
        super_resolve(net, torch.full((1, 3, _TRIAL, _TRIAL), 0.5, device=device), scale, None, 0, "a grey image")


def evaluate(
    net: Network,
    pairs: Iterable[Pair],
    scale: int,
    *,
    metrics: Mapping[str, Metric] | None = None,
    tile: int | None = None,
    overlap: int = 32,
    device: torch.device | str = "cpu",
    on_image: Callable[[Pair, UInt8Image, Score], None] | None = None,
) -> list[Score]:
    """Super-resolve images and measure the results.

    PSNR and SSIM are those of the papers: on Y, without a border of ``scale`` pixels, of images rounded to 8 bits. Of
    a pair without an HR image these are None, and so is every further metric that is no :class:`NoReference`. A metric
    that fails on an image, or gives NaN, has no value there, and the score says why; all else is measured.
    Seconds are wall time of the one pass from the LR image on the device to the SR image there, after a first pass
    over a small image. Memory is the most that pass takes beyond what was held before it (weights, the LR image): on
    CUDA of what torch allocates, on a CPU of the whole process' resident memory, where it can be measured (Linux with
    glibc).

    Args:
        net: the network, called as ``sr = net(lr)``, in evaluation mode, on the device. :func:`bicubic` is one.
        pairs: what to measure on, of any sizes; :func:`bicubic_pair` makes one of an HR image, ``Pair(name, lr)`` is
            a photo without one.
        scale: how many times larger HR is.
        metrics: further ones by name, such as :func:`contrastive_sr.evaluation.lpips.load_lpips`.
        tile: longest side of what the network is given, in LR pixels, see :func:`super_resolve_in_tiles`; None: images
            as they are.
        overlap: of tiles.
        device: where the LR images go.
        on_image: called as (pair, SR image, score) after each.

    Returns:
        One score for each pair.

    Raises:
        ConfigError: a network that fails, enlarges by another factor, is in training mode, or lacks memory.
        DataError: a pair that does not fit.
        NonFiniteError: the network gives NaN or infinity.

    Example:
        >>> import numpy as np
        >>> photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        >>> score = evaluate(bicubic(4), [bicubic_pair("noise", photo, 4)], 4)[0]
        >>> list(score.values)
        ['psnr_y', 'ssim_y', 'seconds', 'memory_mib']
        >>> evaluate(bicubic(4), [Pair("photo", torch.rand(1, 3, 9, 9))], 4)[0].values["psnr_y"] is None
        True
    """
    check_count(scale, "evaluate(scale)")
    if tile is not None:
        check_tiles(tile, overlap)
    device = torch.device(device)
    check_network(net, scale, device)
    scores = []
    for pair in pairs:
        check_pair(pair, scale)
        lr = pair.lr.to(device)
        with torch.inference_mode(), _no_collection():
            meter = _Meter(device)
            output = super_resolve(net, lr, scale, tile, overlap, pair.name)
            seconds, memory = meter.stop()
        sr = as_image(output)
        measured: dict[str, Metric] = {
            "psnr_y": partial(psnr_y, border=scale),
            "ssim_y": partial(ssim_y, border=scale),
            **(metrics or {}),
        }
        values: dict[str, float | None] = {}
        failed = {}
        for name, metric in measured.items():
            try:
                values[name] = _value(metric, sr, pair.hr)
            except Exception as error:  # what metrics raise has no common base, and one must not cost all the others
                values[name], failed[name] = None, describe_error(error)
        values |= {"seconds": seconds, "memory_mib": memory}
        score = Score(pair.name, sr.shape[1], sr.shape[0], values, failed)
        scores.append(score)
        if on_image is not None:
            on_image(pair, sr, score)
    return scores


def _value(metric: Metric, sr: UInt8Image, hr: UInt8Image | None) -> float | None:
    if isinstance(metric, NoReference):
        value = metric.measure(sr)
    elif hr is not None:
        value = metric(sr, hr)
    else:
        return None
    if value is not None and math.isnan(value):
        raise DataError("it is not a number")
    return value


def summary(scores: Sequence[Score]) -> dict[str, float | None]:
    """One row for many images: means over those that have a value, of ``memory_mib`` the largest.

    Args:
        scores: of one network on one data set, at least one.

    Example:
        >>> summary([Score("a", 8, 8, {"psnr_y": 28.0}), Score("b", 8, 8, {"psnr_y": 30.0})])
        {'psnr_y': 29.0}
    """
    row: dict[str, float | None] = {}
    for name in scores[0].values:
        values = [value for score in scores if (value := score.values[name]) is not None]
        if not values:
            row[name] = None
        else:
            row[name] = max(values) if name == "memory_mib" else math.fsum(values) / len(values)
    return row


def check_pair(pair: Pair, scale: int) -> None:
    """Refuse a pair whose sizes do not fit each other.

    Raises:
        DataError: they do not.
    """
    if pair.hr is None:
        return
    expected = (*(side * scale for side in pair.lr.shape[-2:]), 3)
    if pair.hr.shape != expected:
        raise DataError(
            f"{pair.name}: expected an HR image of shape {expected} for scale {scale}, got {pair.hr.shape}. "
            "HR must be exactly that many times as wide and high as LR."
        )


def check_measurable(pair: Pair, scale: int) -> None:
    """Refuse a pair for which there is no PSNR or no SSIM.

    Raises:
        DataError: there is no HR image, its size does not fit, or it is too small.
    """
    check_pair(pair, scale)
    least = 2 * scale + 11
    height, width = (0, 0) if pair.hr is None else pair.hr.shape[:2]
    if min(height, width) < least:
        raise DataError(
            f"{pair.name}: expected an HR image of at least {least} pixels a side, so that SSIM's window of 11 fits "
            f"inside the border of {scale}; got {width} x {height}."
        )


def super_resolve(net: Network, lr: Tensor, scale: int, tile: int | None, overlap: int, name: str) -> Tensor:
    """Super-resolve an image, whole or in tiles, and say what is wrong where that fails.

    Args:
        net: the network.
        lr: (1, 3, h, w), RGB in [0, 1].
        scale: how many times larger the output is.
        tile: longest side of what the network is given, in LR pixels; None: the whole image.
        overlap: of tiles.
        name: of the image, for messages.

    Raises:
        ConfigError: the network fails, lacks memory, or enlarges by another factor.
        NonFiniteError: it gives NaN or infinity.
    """
    size = f"{name}, {lr.shape[3]} x {lr.shape[2]} in LR"
    try:
        if tile is None:
            sr = net(lr)
            check_scaled(sr, lr, scale)
        else:
            sr = super_resolve_in_tiles(net, lr, scale, tile, overlap)
    except ContrastiveSRError:
        raise
    except Exception as error:  # what networks raise has no common base
        if _lacks_memory(error):
            advice = "Try --tile 256 (in Python: tile=256)" if tile is None else f"Try tiles smaller than {tile}"
            raise ConfigError(
                f"{size}: there is too little memory on the {lr.device.type} for it. {advice}."
            ) from error
        raise ConfigError(f"{size}: the network failed ({describe_error(error)}).") from error
    if not sr.isfinite().all():
        raise NonFiniteError(
            f"{size}: the network's output holds NaN or infinity. Was the checkpoint of a run that diverged?"
        )
    return sr


def _lacks_memory(error: Exception) -> bool:
    # torch has no error of its own for a CPU that has no memory left
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let Python collect no garbage: what is freed in a pass would be missing in what the pass took."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Meter:
    """Seconds and MiB from its making to `stop`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before: float | None = torch.cuda.memory_allocated(device) / 2**20
        else:
            self.before = _resident("VmRSS") if _measurable() else None
        self.start = time.perf_counter()

    def stop(self) -> tuple[float, float | None]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - self.start
        if self.before is None:
            return seconds, None
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if on_gpu else _resident("VmHWM")
        return seconds, max(0.0, peak - self.before)


def _measurable() -> bool:
    """Let Linux measure the highest resident memory of this process anew; False where it cannot.

    What glibc has kept of freed memory is given back before, or an image would seem to take nothing after a like one.
    """
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is None:
        return False
    give_back(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> float:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 2**10
