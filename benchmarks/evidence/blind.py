"""DASR and CRL-SR: what an encoder knows of the degradation, CRL-SR's six models, DASR with and without contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.evidence.images import SCALE, TestImages, TrainingImages, check_folders, to_bytes
from benchmarks.evidence.training import Batches, Bicubic, Part, SRTraining, Study, Training, fixed, machine, words
from contrastive_sr import networks
from contrastive_sr.config import build
from contrastive_sr.degradations import build_degradation
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.evaluation.degradations import degraded_versions, encode, knn_accuracy, probe_r2
from contrastive_sr.evaluation.metrics import psnr_y
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.methods import METHODS, DegradationContrast, Methods

WIDTHS = (0.2, 1.0, 1.8, 2.6, 3.4)
ENCODER_ARMS = ("same_image", "same_degradation", "sr_loss", "supervised")
CRL_ARMS = ("a", "b", "c", "d", "e", "f")
DASR_ARMS = ("without", "same_image", "same_degradation")
ARMS = {"encoder": ENCODER_ARMS, "crl": CRL_ARMS, "dasr": DASR_ARMS}
"""By part, what is trained. Of the contrasts, ``same_image`` is the paper's, ``same_degradation`` ours."""
REFERENCES = {"encoder": "random", "crl": "bicubic", "dasr": "bicubic"}
"""By part, what needs no training: it is measured once, at step 0."""

DEGRADATIONS = {"encoder": "dasr-isotropic", "crl": "crl-isotropic", "dasr": "dasr-isotropic"}
"""By part, the preset that is trained on."""

_SIGMA = "degradation/sigma"


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        crop: by part, sides of the training crops, in HR pixels.
        batch: by part, images a step.
        queue: keys in the queue.
        crl: arguments of ``networks.CRLSR``.
        dasr: arguments of ``networks.DASR``.
        warmup_steps: steps of contrast alone, before the SR loss, in ``"dasr"``.
        refinement: in ``"crl"``, from which step on, at how many positions and of which dimension it and the
            decoupling are contrasted: arguments of ``methods.CRLSR``.
        first: the first step at which is measured, by part; then at twice as many, and so on.
        seeds: by part, how many.
        test_images: images of each test folder at most.
        encoder_test: sides of what an encoder is tested on, in HR pixels.
        average: decay of the averaged weights that are tested, in ``"crl"`` and ``"dasr"``.
        rate: learning rate of the SR networks.
        encoder_rate: that of an encoder that is trained alone.
    """

    crop: Mapping[str, int]
    batch: Mapping[str, int]
    queue: int
    crl: Mapping[str, Any]
    dasr: Mapping[str, Any]
    warmup_steps: int
    refinement: Mapping[str, Any]
    first: Mapping[str, int]
    seeds: Mapping[str, int]
    test_images: int
    encoder_test: int
    average: float = 0.99
    rate: float = 5e-4
    encoder_rate: float = 3e-4


SIZES = {
    "small": Size(
        crop={"encoder": 128, "crl": 96, "dasr": 96},
        batch={"encoder": 32, "crl": 8, "dasr": 16},
        queue=2048,
        crl={"channels": 16, "encoder_blocks": 3, "decoder_blocks": 1},
        dasr={"channels": 16, "groups": 1, "blocks": 2},
        warmup_steps=250,
        refinement={"warmup_steps": 250, "positions": 128, "dim": 128},
        first={"encoder": 100, "crl": 500, "dasr": 250},
        seeds={"encoder": 1, "crl": 3, "dasr": 3},
        test_images=20,
        encoder_test=192,
    ),
    "large": Size(
        crop={"encoder": 192, "crl": 192, "dasr": 192},
        batch={"encoder": 64, "crl": 16, "dasr": 32},
        queue=8192,
        crl={"channels": 32, "encoder_blocks": 6, "decoder_blocks": 2},
        dasr={"channels": 64, "groups": 2, "blocks": 3},
        warmup_steps=4000,
        refinement={"warmup_steps": 1000, "positions": 256, "dim": 256},
        first={"encoder": 500, "crl": 2000, "dasr": 1000},
        seeds={"encoder": 1, "crl": 3, "dasr": 3},
        test_images=100,
        encoder_test=320,
        average=0.999,
    ),
}


class Tests:
    """The degraded test images, made when they are first needed.

    Args:
        folders: the HR images.
        size: how large everything is.
    """

    def __init__(self, folders: list[TestImages], size: Size) -> None:
        self.folders, self.size = folders, size
        self._made: dict[tuple[str, str], list[Tensor]] = {}
        self._versions: list[Tensor] | None = None

    def psnr(self, net: Callable[[Tensor], Tensor], preset: str) -> dict[str, float]:
        """Mean PSNR on Y over each folder, by its name."""
        means = {}
        for folder in self.folders:
            key = folder.name, preset
            if key not in self._made:
                self._made[key] = folder.degraded(preset)
            with torch.no_grad():
                values = [
                    psnr_y(to_bytes(net(lr)), to_bytes(hr), border=SCALE)
                    for lr, hr in zip(self._made[key], folder.hr, strict=True)
                ]
            means[folder.name] = float(np.mean(values))
        return means

    def over_widths(self, net: nn.Module) -> dict[str, float]:
        """PSNR by folder and kernel width."""
        figures = {}
        for width in WIDTHS:
            values = self.psnr(net, f"dasr-table1-width{width}-x{SCALE}")
            figures.update({f"psnr/{folder}/{width}": value for folder, value in values.items()})
        return figures

    def spatial(self, net: nn.Module) -> dict[str, float]:
        """PSNR by folder where width and noise grow from left to right."""
        return {f"psnr/{folder}": value for folder, value in self.psnr(net, f"crl-spatial-x{SCALE}").items()}

    def of_networks_encoder(self, net: nn.Module) -> dict[str, float]:
        """What the encoder of a DASR network knows."""
        assert isinstance(net, networks.DASR)
        return self.of_encoder(net.encode)

    def of_encoder(self, encoder: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Neighbours and probe over the kernel widths, on the images of all folders."""
        if self._versions is None:
            degradations = [build_degradation(f"dasr-table1-width{width}-x{SCALE}") for width in WIDTHS]
            images = [_middle(hr, self.size.encoder_test) for folder in self.folders for hr in folder.hr]
            self._versions = degraded_versions(images, degradations)
        representations = encode(encoder, self._versions)
        return {"knn": knn_accuracy(representations), "r2": probe_r2(representations, WIDTHS)}


def _middle(image: Tensor, size: int) -> Tensor:
    top, left = (max(0, length - size) // 2 for length in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


class ContrastTraining(Training):
    """An encoder by contrast alone, by the method that trains one beside any network."""

    def __init__(self, method: DegradationContrast, batches: Batches, tests: Tests, rate: float) -> None:
        super().__init__(method.pair.encoder, batches, tests.of_encoder)
        self.methods = Methods([method])
        self.methods.attach(self.net)
        self.optimizer = torch.optim.Adam(method.pair.parameters(), lr=rate)

    def train_on(self, batch: dict[str, Tensor]) -> None:
        batch = {**batch, "sr": batch["hr"]}  # there is no network beside it
        batch = self.methods.run(self.net, batch)
        loss = torch.stack(list(self.methods.auxiliary_losses(batch).values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.methods.sr_losses(batch)

    def parts(self) -> dict[str, Any]:
        return {"methods": self.methods, "optimizer": self.optimizer}


class SupervisedTraining(Training):
    """An encoder that is told the kernel's width: what can be had."""

    def __init__(self, batches: Batches, tests: Tests, rate: float, device: torch.device) -> None:
        super().__init__(DegradationEncoder().to(device), batches, tests.of_encoder)
        self.width = nn.Linear(DegradationEncoder.dim, 1).to(device)
        self.optimizer = torch.optim.Adam([*self.net.parameters(), *self.width.parameters()], lr=rate)

    def train_on(self, batch: dict[str, Tensor]) -> None:
        width = (batch[_SIGMA][:, 0] - 2.1) / 1.1  # of about mean 0 and variance 1
        loss = F.mse_loss(self.width(self.net(batch["lr"]))[:, 0], width)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def parts(self) -> dict[str, Any]:
        return {"width": self.width, "optimizer": self.optimizer}


class Trainings:
    """The arms.

    Args:
        images: to train on.
        tests: what is measured on.
        size: how large everything is.
        device: where it is trained.
    """

    def __init__(self, images: TrainingImages, tests: Tests, size: Size, device: torch.device) -> None:
        self.images, self.tests, self.size, self.device = images, tests, size, device

    def batches(self, part: str, seed: int, wants: Sequence[str] = ()) -> Batches:
        """The degraded crops that all arms of a part see."""
        degradation = TrainingDegradation(DEGRADATIONS[part], wants, seed, SCALE)
        crop, count = self.size.crop[part], self.size.batch[part]

        def batch(step: int) -> dict[str, Tensor]:
            first, second = (crops.to(self.device) for crops in self.images.crops(count, crop, seed, step))
            return degradation.batch(first, second, step)

        return batch

    def encoder(self, arm: str, seed: int) -> Training:
        """(a): a degradation encoder."""
        torch.manual_seed(seed)
        size = self.size
        if arm == "sr_loss":
            net, batches = networks.DASR(scale=SCALE, **size.dasr), self.batches("encoder", seed)
            return SRTraining(net, None, batches, self.tests.of_networks_encoder, size.rate, size.average, self.device)
        if arm == "supervised":
            batches = self.batches("encoder", seed, (_SIGMA,))
            return SupervisedTraining(batches, self.tests, size.encoder_rate, self.device)
        config = {"type": "DegradationContrast", "queue_size": size.queue, "positives_from": arm}
        method = build(METHODS, config, arm).to(self.device)
        assert isinstance(method, DegradationContrast)
        return ContrastTraining(method, self.batches("encoder", seed, method.wants), self.tests, size.encoder_rate)

    def crl(self, arm: str, seed: int) -> Training:
        """(b): a model of CRL-SR's Table 1."""
        torch.manual_seed(seed)
        size = self.size
        net = networks.CRLSR(scale=SCALE, **size.crl)
        config = {"type": "CRLSR", "variant": arm, "srnce_variant": "tempered", "seed": seed, **size.refinement}
        method = build(METHODS, config, arm)
        batches = self.batches("crl", seed, method.wants)
        return SRTraining(net, method, batches, self.tests.spatial, size.rate, size.average, self.device)

    def dasr(self, arm: str, seed: int) -> Training:
        """(c): DASR with or without contrast."""
        torch.manual_seed(seed)
        size = self.size
        net = networks.DASR(scale=SCALE, **size.dasr)
        contrast = None
        if arm != "without":
            config = {"type": "DASR", "queue_size": size.queue, "positives_from": arm}
            contrast = build(METHODS, {**config, "warmup_steps": size.warmup_steps}, arm)
        batches = self.batches("dasr", seed, () if contrast is None else contrast.wants)
        return SRTraining(net, contrast, batches, self.tests.over_widths, size.rate, size.average, self.device)

    def random_encoder(self) -> dict[str, float]:
        """The figures of an encoder that was not trained."""
        torch.manual_seed(0)
        return self.tests.of_encoder(DegradationEncoder().to(self.device).eval())


def blind_study(train: Sequence[Path], test: Sequence[Path], size_name: str, size: Size, device: torch.device) -> Study:
    """The study of blind SR.

    Args:
        train: folders of HR images to train on.
        test: folders of HR images to measure on, of different names.
        size_name: what ``size`` is called.
        size: how large everything is.
        device: where it is trained.

    Raises:
        ConfigError: folders of one name, or images both trained and tested on.
        DataError: no images, or one that cannot be used.
    """
    check_folders(train, test)
    images = TrainingImages(train, max(size.crop.values()), device)
    folders = [TestImages(folder.resolve(), size.test_images, device) for folder in test]
    tests = Tests(folders, size)
    trainings = Trainings(images, tests, size, device)
    counts = {folder.name: len(folder.hr) for folder in folders}
    references: dict[str, Callable[[], dict[str, float]]] = {
        "encoder": trainings.random_encoder,
        "crl": partial(tests.spatial, Bicubic()),
        "dasr": partial(tests.over_widths, Bicubic()),
    }
    parts = {
        name: Part(
            arms,
            REFERENCES[name],
            size.seeds[name],
            size.first[name],
            setting(name, size),
            getattr(trainings, name),
            references[name],
        )
        for name, arms in ARMS.items()
    }
    tested = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return Study(
        parts,
        data=f"{len(images.images)} training images, tested on {tested}; {machine(device)}",
        note=f"; {images.left_out} smaller than a training crop are left out" if images.left_out else "",
        settings={"size": size_name, "training images": len(images.images), "test images": counts, **fixed(size)},
        device=device,
    )


def setting(part: str, size: Size) -> str:
    """The network and the batch of a part, in words."""
    crops = f"batch {size.batch[part]}, {size.crop[part]}-pixel HR crops, Adam"
    if part == "encoder":
        return (
            f"encoder of 1.28 M parameters, {crops} {size.encoder_rate:g}, queue {size.queue}; sr_loss: "
            f"DASR {words(size.dasr)}, {size.rate:g}, averaged weights"
        )
    if part == "crl":
        return (
            f"CRLSR {words(size.crl)}, {crops} {size.rate:g}, averaged weights, shares 0.05, "
            f"refinement from step {size.refinement['warmup_steps']} on, {size.refinement['positions']} positions, "
            f"heads to {size.refinement['dim']}; trained on crl-isotropic-x{SCALE}, tested on crl-spatial-x{SCALE}"
        )
    return (
        f"DASR {words(size.dasr)} and the encoder of 1.28 M parameters, {crops} "
        f"{size.rate:g}, averaged weights, queue {size.queue}, contrast of weight 1/255 and {size.warmup_steps} steps "
        f"of it alone beforehand; trained on dasr-isotropic-x{SCALE}"
    )
