"""Cria-CL and MPF-Net on real camera pairs: the ablations of their tables that need no pretrained weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.evidence.images import SCALE, TestPairs, TrainingPairs, check_folders, to_bytes
from benchmarks.evidence.training import Bicubic, Part, SRTraining, Study, Training, fixed, machine, words
from contrastive_sr import networks
from contrastive_sr.config import build
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.embeddings import VGGFeatures
from contrastive_sr.errors import HostError
from contrastive_sr.evaluation.metrics import psnr_y, ssim_y
from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.methods import METHODS, Method
from contrastive_sr.networks import NETWORKS

CRITERIA_VARIANTS = {"plain": 1, "sum": 2, "align": 3, "uniformity": 4, "both": 5, "branches": 6, "full": 7}
NETWORK_ARMS = {"baseline": ("vanilla", False), "cpb": ("vanilla", True), "mpfe": ("mpfe", False)} | {
    "mpfe_cpb": ("mpfe", True)
}
REGULARIZATION_ARMS = ("1", "3", "5", "7")
PERCEPTUAL_SHARE = 1.0
SHOWN = 3
CROP = 96


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        crop: sides of the training crops, in HR pixels.
        batch: by part, images a step.
        rrdb: arguments of BasicSR's ``RRDBNet``, the trunk of ``"criteria"``.
        mpf: arguments of ``networks.MPFNet``.
        plain_channels: instead, those of MPFNet without cross fusion, so that it has about as many parameters.
        embedding: of ``"regularization"``.
        warmup_steps: of ``"regularization"``: steps on L1 alone.
        first: by part, the first step at which is measured.
        seeds: by part, how many.
        test_images: at most.
        rate: learning rate.
        average: decay of the averaged weights that are tested.
    """

    crop: int
    batch: Mapping[str, int]
    rrdb: Mapping[str, Any]
    mpf: Mapping[str, Any]
    plain_channels: int
    embedding: Mapping[str, Any]
    warmup_steps: int
    first: Mapping[str, int]
    seeds: Mapping[str, int]
    test_images: int
    rate: float = 5e-4
    average: float = 0.99


SIZES = {
    "small": Size(
        crop=64,
        batch={"criteria": 8, "network": 8, "regularization": 4},
        rrdb={"num_feat": 16, "num_block": 2, "num_grow_ch": 8},
        mpf={"channels": 12, "blocks": 2},
        plain_channels=14,
        embedding={"type": "HaarDiscriminator"},
        warmup_steps=100,
        first={"criteria": 500, "network": 500, "regularization": 500},
        seeds={"criteria": 3, "network": 3, "regularization": 3},
        test_images=30,
        rate=1e-3,
    ),
    "large": Size(
        crop=192,
        batch={"criteria": 16, "network": 16, "regularization": 16},
        rrdb={"num_feat": 64, "num_block": 6, "num_grow_ch": 32},
        mpf={"channels": 50, "blocks": 3},
        plain_channels=61,
        embedding={"type": "SNResNet18"},
        warmup_steps=2000,
        first={"criteria": 2000, "network": 2000, "regularization": 2000},
        seeds={"criteria": 3, "network": 3, "regularization": 3},
        test_images=30,
        rate=2e-4,
        average=0.999,
    ),
}


class Tests:
    """The test pairs, and what is measured on them.

    Args:
        pairs: LR and HR images.
    """

    def __init__(self, pairs: TestPairs) -> None:
        self.pairs = pairs
        try:
            self.niqe = import_basicsr("basicsr.metrics.niqe").calculate_niqe
        except HostError as error:
            raise HostError(f"NIQE is BasicSR's: {error}") from error

    def figures(self, net: nn.Module) -> dict[str, float]:
        """PSNR and SSIM on Y, and NIQE, of each image."""
        figures = {}
        for name, lr, hr in zip(self.pairs.names, self.pairs.lr, self.pairs.hr, strict=True):
            with torch.no_grad():
                sr = to_bytes(net(lr))
            figures[f"psnr/{name}"] = psnr_y(sr, hr, border=SCALE)
            figures[f"ssim/{name}"] = ssim_y(sr, hr, border=SCALE)
            figures[f"niqe/{name}"] = float(self.niqe(sr[..., ::-1], crop_border=SCALE))  # BGR, as BasicSR has it
        return figures

    def crops(self, net: nn.Module | None) -> dict[str, UInt8Image]:
        """The middles of a few images, by name: what a network makes of them, or without one HR."""
        every = range(0, len(self.pairs.names), max(1, len(self.pairs.names) // SHOWN))
        crops = {}
        for index in list(every)[:SHOWN]:
            with torch.no_grad():
                image = self.pairs.hr[index] if net is None else to_bytes(net(self.pairs.lr[index]))
            top, left = ((length - CROP) // 2 for length in image.shape[:2])
            crops[self.pairs.names[index]] = image[top : top + CROP, left : left + CROP]
        return crops


class Trainings:
    """The arms.

    Args:
        folder: of the training pairs.
        tests: what is measured on.
        size: how large everything is.
        device: where it is trained.
        vgg: weights of the criteria VGG, as of :class:`~contrastive_sr.embeddings.VGGFeatures`. None: without these.
    """

    def __init__(self, folder: Path, tests: Tests, size: Size, device: torch.device, vgg: str | None = None) -> None:
        self.pairs = TrainingPairs(folder, size.crop, device)
        self.tests, self.size, self.device, self.vgg = tests, size, device, vgg

    def criteria(self, arm: str, seed: int) -> Training:
        """A row of Cria-CL's Table V."""
        torch.manual_seed(seed)
        variant = CRITERIA_VARIANTS[arm]
        net = import_basicsr("basicsr.archs.rrdbnet_arch").RRDBNet(3, 3, scale=SCALE, **self.size.rrdb)
        if variant >= 6:
            net = networks.CriteriaBranches(net, scale=SCALE)
        # shares: beside no perceptual loss the paper's weights would let the adversarial criterion rule
        criteria: list[dict[str, object]] = [{"type": "Adversarial", "share": 0.05}]
        if self.vgg is not None:
            criteria.append({"type": "VGG", "share": PERCEPTUAL_SHARE})
        config = {"type": "CriaCL", "variant": variant, "sr_criteria": criteria, "vgg_weights": self.vgg}
        return self._training("criteria", net, build(METHODS, config, arm), seed)

    def network(self, arm: str, seed: int) -> Training:
        """A row of MPF-Net's Table V."""
        torch.manual_seed(seed)
        perceptions, fusion = NETWORK_ARMS[arm]
        channels = self.size.mpf["channels"] if fusion else self.size.plain_channels
        config = {"type": "MPFNet", "scale": SCALE, **self.size.mpf, "channels": channels}
        net = build(NETWORKS, {**config, "perceptions": perceptions, "cross_fusion": fusion}, arm)
        return self._training("network", net, None, seed)

    def regularization(self, arm: str, seed: int) -> Training:
        """A row of MPF-Net's Table VII."""
        torch.manual_seed(seed)
        net = networks.MPFNet(scale=SCALE, **self.size.mpf)
        config = {"type": "MPF", "variant": int(arm), "embedding": self.size.embedding, "seed": seed}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* there is no teacher")  # the table says so
            method = build(METHODS, {**config, "warmup_steps": self.size.warmup_steps}, arm)
        return self._training("regularization", net, method, seed)

    def _training(self, part: str, net: nn.Module, method: Method | None, seed: int) -> Training:
        size, count = self.size, self.size.batch[part]

        def batch(step: int) -> dict[str, Tensor]:
            return {name: images.to(self.device) for name, images in self.pairs.crops(count, seed, step).items()}

        return SRTraining(net, method, batch, self.tests.figures, size.rate, size.average, self.device)


def real_study(
    train: Path, test: Path, size_name: str, size: Size, device: torch.device, vgg: str | None = None
) -> Study:
    """The study of real camera pairs.

    Args:
        train: folder with ``HR`` and ``LR`` to train on.
        test: folder with ``HR`` and ``LR`` to measure on.
        size_name: what ``size`` is called.
        size: how large everything is.
        device: where it is trained.
        vgg: weights of the criteria VGG: ``"torchvision"``, ``"timm"`` or a file. None: Table V without these.

    Raises:
        ConfigError: one folder for both, or weights that are missing or do not fit.
        DataError: no pairs, or ones that cannot be used.
        HostError: BasicSR, whose RRDBNet and NIQE are used, is not there.
    """
    check_folders([train], [test])
    if vgg is not None:
        VGGFeatures(weights=vgg)  # before any training
    tests = Tests(TestPairs(test, size.test_images, device))
    trainings = Trainings(train, tests, size, device, vgg)
    arms: dict[str, tuple[str, ...]] = {
        "criteria": tuple(CRITERIA_VARIANTS),
        "network": tuple(NETWORK_ARMS),
        "regularization": REGULARIZATION_ARMS,
    }
    parts = {
        name: Part(
            names,
            "bicubic",
            size.seeds[name],
            size.first[name],
            setting(name, size, vgg),
            getattr(trainings, name),
            partial(tests.figures, Bicubic()),
            tests.crops,
        )
        for name, names in arms.items()
    }
    counts = {"training pairs": len(trainings.pairs.hr), "test pairs": len(tests.pairs.hr)}
    return Study(
        parts,
        data=f"{counts['training pairs']} training pairs, {counts['test pairs']} test pairs; {machine(device)}",
        note="",
        settings={"size": size_name, "vgg": vgg, **counts, **fixed(size)},
        device=device,
    )


def setting(part: str, size: Size, vgg: str | None) -> str:
    """The network and the batch of a part, in words."""
    batch = f"batch {size.batch[part]}, {size.crop}-pixel HR crops, Adam {size.rate:g}, averaged weights"
    if part == "criteria":
        lists = "positive SSIM, negative Adversarial; no perceptual loss"
        if vgg is not None:
            lists = f"positives and negatives the paper's; perceptual loss of share {PERCEPTUAL_SHARE:g}"
        return (
            f"RRDBNet {words(size.rrdb)}, {batch}; L1; adversarial, align and uniformity each of share 0.05; "
            f"anchor Pixel, {lists}"
        )
    if part == "network":
        return f"MPFNet {words(size.mpf)}, without CPB {size.plain_channels} channels, {batch}; L1"
    return (
        f"MPFNet {words(size.mpf)}, {batch}; L1, from step {size.warmup_steps} on with contrast of share 0.05 in "
        f"{size.embedding['type']}, no teacher"
    )
