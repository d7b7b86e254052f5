"""PSNR against perceptual figures after fine-tuning with several losses, in a loop of our own: the study
`benchmarks/studies/frontier.yml` for a machine that has a GPU and no host. Needs Pillow beside torch and numpy."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.loop import Config, Loop
from contrastive_sr.data.images import as_image, list_images, read_rgb
from contrastive_sr.degradations import bicubic_downsample
from contrastive_sr.errors import DataError, HostError
from contrastive_sr.evaluation.blur import load_blur
from contrastive_sr.evaluation.evaluate import Metric
from contrastive_sr.evaluation.jaggedness import jaggedness_excess
from contrastive_sr.evaluation.lpips import load_lpips
from contrastive_sr.evaluation.metrics import psnr_y
from contrastive_sr.evaluation.pattern import pattern_excess

SCALE = 4
LEARNING_RATE = 2e-4
ARMS: Mapping[str, Config | None] = {
    "l1": None,
    "pcl_1": {"type": "PCL", "every": 4},
    "pcl_0.5": {"type": "PCL", "loss_share": 0.5, "every": 4},
    "regularization": {"type": "ContrastiveRegularization", "loss_share": 1.0, "every": 4},
    "srnce": {"type": "SRNCE", "loss_share": 1.0, "every": 4},
    "match_1": {
        "type": "MCL",
        "loss_share": 1.0,
        "every": 4,
        "embedding": {"type": "StationaryHaarDiscriminator"},
        "positives": [{"type": "HighResolution"}, {"type": "Sharpen", "count": 3}],
        "negatives": [],
    },
}


class Photos:
    """HR images on the device, and batches of random crops of them.

    Args:
        folder: of RGB images.
        crop: sides of the crops; smaller images are left out.
        device: where they are kept.

    Raises:
        DataError: no image that is large enough.
    """

    def __init__(self, folder: Path, crop: int, device: torch.device) -> None:
        images = [(255 * read_rgb(file)[0]).round().byte() for file in list_images(folder)]
        self.images = [image.to(device) for image in images if min(image.shape[-2:]) >= crop]
        self.crop = crop
        if not self.images:
            raise DataError(f"{folder}: expected images of at least {crop} pixels a side, got none.")

    def batch(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """HR crops, turned and mirrored, and their LR images.

        Args:
            count: how many.
            generator: on the CPU, so that crops are the same on every device.
        """
        crops = []
        for number in torch.randint(len(self.images), (count,), generator=generator).tolist():
            image = self.images[number]
            top, left = (int(torch.randint(side - self.crop + 1, (), generator=generator)) for side in image.shape[-2:])
            turns, mirrored = torch.randint(4, (2,), generator=generator).tolist()
            crop = image[:, top : top + self.crop, left : left + self.crop].rot90(turns, (1, 2))
            crops.append(crop.flip(2) if mirrored % 2 else crop)
        hr = torch.stack(crops).float() / 255
        return {"lr": shrunk(hr), "hr": hr}


def shrunk(hr: Tensor) -> Tensor:
    """LR images of 8 bits."""
    return bicubic_downsample(hr, SCALE).clamp(0, 1).mul(255).round() / 255


def train(
    loop: Loop, photos: Photos, steps: int, *, batch: int, drop_at: int, seed: int, until: float
) -> tuple[int, float]:
    """Train, with a quarter of the learning rate from some step on.

    Returns:
        How many steps there were before ``until``, and the seconds of one.
    """
    generator = torch.Generator().manual_seed(seed)
    start, done, loss = time.monotonic(), 0, torch.zeros(())
    while done < steps and (done == 0 or time.monotonic() < until):
        for group in loop.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 if done < drop_at else 0.25)
        loss = loop.step(photos.batch(batch, generator))
        done += 1
    if not bool(loss.isfinite()):  # also waits for the device
        raise AssertionError(f"the loss is {float(loss)} after {done} steps")
    return done, (time.monotonic() - start) / done


@torch.no_grad()
def measure(net: nn.Module, tests: list[Tensor], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Means over the test images.

    Args:
        net: the SR network.
        tests: (1, 3, H, W) each, RGB in [0, 1], sides multiples of the scale.
        metrics: by name.
    """
    pairs = [(as_image(net(shrunk(hr))), as_image(hr)) for hr in tests]
    values = {name: [metric(sr, hr) for sr, hr in pairs] for name, metric in metrics.items()}
    return {name: round(statistics.mean(v for v in each if v is not None), 4) for name, each in values.items()}


def available_metrics(lpips_weights: Path | None, device: torch.device) -> dict[str, Metric]:
    """PSNR on Y, the excess of dots and of jagged edges, and what the installed packages allow."""
    metrics: dict[str, Metric] = {
        "psnr_y": partial(psnr_y, border=SCALE),
        "pattern_scale over HR": partial(pattern_excess, period=SCALE),
        "jaggedness over bicubic": partial(jaggedness_excess, scale=SCALE),
    }
    more: list[Callable[[], Mapping[str, Metric]]] = [lambda: {"blur": load_blur(SCALE)["blur"]}]
    if lpips_weights is not None:
        more.append(lambda: {"lpips": load_lpips(lpips_weights, device)})
    for load in more:
        try:
            metrics.update(load())
        except HostError as error:
            print(f"left out: {error}", flush=True)
    return metrics


def frontier(
    make: Callable[[], nn.Module],
    train_folder: Path,
    test_folder: Path,
    *,
    device: torch.device,
    crop: int,
    batch: int,
    start_steps: int,
    steps: int,
    until: float,
    lpips_weights: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """A start by L1, and what each arm makes of it, on the same batches.

    Args:
        make: makes the network.
        train_folder: of HR images.
        test_folder: of HR images.
        device: where it trains.
        crop: sides of HR crops.
        batch: crops in a step.
        start_steps: of the start, which takes half of the time at most.
        steps: of each arm.
        until: when it has to be over, in the clock of `time.monotonic`; arms that would take longer are left out.
        lpips_weights: of AlexNet, for LPIPS.
        seed: of weights, crops and methods.
    """
    photos = Photos(train_folder, crop, device)
    whole = [read_rgb(file).to(device) for file in list_images(test_folder)]
    tests = [x[..., : x.shape[-2] // SCALE * SCALE, : x.shape[-1] // SCALE * SCALE] for x in whole]
    metrics = available_metrics(lpips_weights, device)
    torch.manual_seed(seed)
    now = time.monotonic()
    start = Loop(make(), None, device)
    done, seconds = train(
        start,
        photos,
        start_steps,
        batch=batch,
        drop_at=start_steps * 3 // 4,
        seed=seed,
        until=now + (until - now) / 2,
    )
    found: dict[str, Any] = {}
    found["start"] = {"steps": done, "ms": round(1000 * seconds, 2)} | measure(start.net, tests, metrics)
    for name, config in ARMS.items():
        if time.monotonic() + 3 * seconds * steps > until:
            found[name] = "left out, the time was up"
            continue
        torch.manual_seed(seed + 1)
        loop = Loop(copy.deepcopy(start.net), config, device)
        done, own = train(loop, photos, steps, batch=batch, drop_at=steps * 3 // 4, seed=seed + 1, until=until)
        found[name] = {"steps": done, "ms": round(1000 * own, 2)} | measure(loop.net, tests, metrics)
    return found
