"""Whether memory stays flat: many steps of each method on the demo's photographs, in the plain PyTorch loop."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.embeddings import discriminator, sn_resnet
from contrastive_sr.errors import ConfigError
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.methods import METHODS, Methods, build_methods

DEGRADATION = "dasr-isotropic-x4"
BATCH, SIZE, SCALE = 2, 32, 4  # small: what a leak adds does not depend on it
IMAGES = 32  # of the demo's; how many there are has no effect on what a leak adds

# Where its defaults are not enough: a method with every part that may keep something from one step to the next.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "PCL": {"every": 1},
    "InfoNCE": {"positions": 64},
    "BidirectionalNCE": {"positions": 64, "layers": ["0", "1"], "embedding": {"out_indices": (0, 1)}},
    "SRNCE": {"positions": 64},
    "DASR": {"queue_size": 256},
    "DegradationContrast": {"queue_size": 256},
    "CRLSR": {"warmup_steps": 0, "positions": 64},
    "CriaCL": {
        "variant": 5,
        "vgg_weights": None,
        "normalize": True,
        "sr_criteria": [{"type": "Adversarial", "share": 0.05}],
    },
    "CriterionTerm": {"criterion": {"type": "Adversarial"}},
    "MCL": {"embedding": {"out_indices": (0,)}, "negatives": [{"type": "PastOutput", "decay": (0.9, 0.99)}]},
    "MPF": {
        "teacher": {"network": nn.Upsample(scale_factor=SCALE)},
        "embedding": {"type": "SNResNet18", "out_indices": (0,)},
        "embedding_training": "dual",
    },
}
# What makes the network of such a method small.
WIDTHS: Mapping[str, Mapping[str, int]] = {
    "DASR": {"channels": 8, "groups": 1, "blocks": 1},
    "TrueKernel": {"channels": 8, "groups": 1, "blocks": 1},
    "CRLSR": {"channels": 8, "encoder_blocks": 3, "decoder_blocks": 1},
}


def small_network(method: str) -> nn.Module:
    """An SR network that the method can train."""
    make = METHODS[method].network
    if make is not None:
        return make(scale=SCALE, **WIDTHS.get(method, {}))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3 * SCALE**2, 3, padding=1), nn.PixelShuffle(SCALE)
    )


def build(method: str) -> tuple[Methods, nn.Module]:
    """A method and its network, attached; embeddings are an eighth as wide as they are, which is 20 times as fast.

    Raises:
        ConfigError: an unknown method.
    """
    if method not in METHODS:
        raise ConfigError(f"memory: expected methods out of {', '.join(METHODS)}, got {method!r}.")
    config = dict(SETTINGS.get(method, {}))
    if "embedding" in config:
        config["embedding"] = {"type": "HaarDiscriminator", **config["embedding"]}
    torch.manual_seed(0)
    narrow = tuple(channels // 8 for channels in discriminator.CHANNELS)
    stages = tuple((channels // 8, stride) for channels, stride in sn_resnet.STAGES)
    with (
        patch.object(discriminator, "CHANNELS", narrow),
        patch.object(sn_resnet, "STAGES", stages),
        patch.object(sn_resnet.SNResNet18, "vector_size", stages[-1][0]),
    ):
        methods, net = build_methods([{"type": method, **config}]), small_network(method)
    methods.attach(net)
    return methods, net


def train(method: str, images: Tensor) -> Iterator[int]:
    """The plain PyTorch loop, for ever.

    Args:
        method: a name in ``METHODS``.
        images: (N, 3, H, W) in [0, 1] that crops are taken from.

    Yields:
        The number of steps done.
    """
    methods, net = build(method)
    degradation = TrainingDegradation(DEGRADATION, methods.wants, seed=0)
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-4)]
    if methods.trainable:
        optimizers.append(torch.optim.SGD([p for p in methods.parameters() if p.requires_grad], lr=1e-4))
    generator = torch.Generator().manual_seed(0)
    step = 0
    while True:
        step += 1
        batch = methods.run(net, degradation.batch(_crops(images, generator), _crops(images, generator), step))
        auxiliary = list(methods.auxiliary_losses(batch).values())
        if auxiliary:
            optimizers[1].zero_grad()
            torch.stack(auxiliary).sum().backward()
            optimizers[1].step()
        pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
        contrast = methods.sr_losses(batch, pixel_loss)
        optimizers[0].zero_grad()
        (pixel_loss + contrast.loss).backward()
        optimizers[0].step()
        del batch, auxiliary, pixel_loss, contrast  # so that what is counted between steps is what was kept
        yield step


def _crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """(BATCH, 3, SIZE, SIZE)."""
    numbers, rows, columns = (
        torch.randint(most, (BATCH,), generator=generator).tolist()
        for most in (len(images), images.shape[2] - SIZE + 1, images.shape[3] - SIZE + 1)
    )
    places = zip(numbers, rows, columns, strict=True)
    return torch.stack([images[number, :, row : row + SIZE, column : column + SIZE] for number, row, column in places])


def demo_images(folder: Path) -> Tensor:
    """Photographs of the demo's data, which are written to a folder first if it has none: (N, 3, 128, 128)."""
    from PIL import Image

    from contrastive_sr.data.demo import prepare_demo_data

    paths = sorted((prepare_demo_data(folder).folder / "train/HR").iterdir())
    chosen = paths[:: max(1, len(paths) // IMAGES)][:IMAGES]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() / 255


def resident_mebibytes() -> float:
    """What this process holds of the machine's memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Row(NamedTuple):
    """Resident memory of one method's training.

    Attributes:
        method: its name.
        warm: MiB after the first tenth of the steps.
        end: MiB after the last step.
    """

    method: str
    warm: float
    end: float

    @property
    def growth(self) -> float:
        """In percent of what there was after the warm-up."""
        return 100 * (self.end / self.warm - 1)


def measure(steps: int, methods: Sequence[str] | None = None) -> Iterator[Row]:
    """Each method in a fresh process.

    Args:
        steps: of each, at least 10.
        methods: names in ``METHODS``; None: all.

    Raises:
        ConfigError: an unknown method.
    """
    names = list(methods or METHODS)
    for name in names:
        build(name)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "demo")
        demo_images(data)
        for name in names:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", name, str(steps), str(data)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            yield Row(name, *map(float, done.stdout.split()))


def main(method: str, steps: int, data: Path) -> None:
    """Print the MiB after the warm-up and at the end."""
    torch.set_num_threads(1)
    training = train(method, demo_images(data))
    for step in training:
        if step == steps // 10:
            print(resident_mebibytes())
        if step == steps:
            print(resident_mebibytes())
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
