"""The trainings that are compared: three parts, the arms of each, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.evidence.images import SCALE, TestImages, TrainingImages
from contrastive_sr import networks
from contrastive_sr.degradations import build_degradation
from contrastive_sr.embeddings import DegradationEncoder
from contrastive_sr.evaluation.degradations import degraded_versions, encode, knn_accuracy, probe_r2
from contrastive_sr.evaluation.metrics import UInt8Image, psnr_y
from contrastive_sr.hosts.degrade import TrainingDegradation
from contrastive_sr.methods import CRLSR, DASR, DegradationContrast, Method

WIDTHS = (0.2, 1.0, 1.8, 2.6, 3.4)
ENCODER_ARMS = ("same_image", "same_degradation", "sr_loss", "supervised")
CRL_ARMS = ("a", "b", "c", "d", "e", "f")
DASR_ARMS = ("without", "same_image", "same_degradation")
ARMS = {"encoder": ENCODER_ARMS, "crl": CRL_ARMS, "dasr": DASR_ARMS}
"""By part, what is trained. Of the contrasts, ``same_image`` is the paper's, ``same_degradation`` ours."""
REFERENCES = {"encoder": "random", "crl": "bicubic", "dasr": "bicubic"}
"""By part, what needs no training: it is measured once, at step 0."""

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
        warmup: steps of contrast alone, before the SR loss, in ``"dasr"``.
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
    warmup: int
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
        warmup=250,
        refinement={"warm_start": 250, "positions": 128, "dim": 128},
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
        warmup=4000,
        refinement={"warm_start": 1000, "positions": 256, "dim": 256},
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
        found = {}
        for folder in self.folders:
            key = folder.name, preset
            if key not in self._made:
                self._made[key] = folder.degraded(preset)
            with torch.no_grad():
                values = [
                    psnr_y(_bytes(net(lr)), _bytes(hr), border=SCALE)
                    for lr, hr in zip(self._made[key], folder.hr, strict=True)
                ]
            found[folder.name] = float(np.mean(values))
        return found

    def of_encoder(self, encoder: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Neighbours and probe over the kernel widths, on the images of all folders."""
        if self._versions is None:
            degradations = [build_degradation(f"dasr-table1-width{width}-x{SCALE}") for width in WIDTHS]
            images = [_middle(hr, self.size.encoder_test) for folder in self.folders for hr in folder.hr]
            self._versions = degraded_versions(images, degradations)
        found = encode(encoder, self._versions)
        return {"knn": knn_accuracy(found), "r2": probe_r2(found, WIDTHS)}


def _bytes(image: Tensor) -> UInt8Image:
    pixels: UInt8Image = (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def _middle(image: Tensor, size: int) -> Tensor:
    top, left = (max(0, length - size) // 2 for length in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


class Training:
    """One arm from one seed: makes steps, is measured, and can be saved and loaded.

    Args:
        images: to train on.
        seed: of weights, crops and degradations; the arms of a part share the last two.
        crop: sides of the crops, in HR pixels.
        batch: images a step.
        degradation: preset.
        wants: what a step needs of a batch beside LR and HR images.
        device: where it is trained.
    """

    net: nn.Module
    """What is of use afterwards: the encoder, or the SR network."""

    def __init__(
        self,
        images: TrainingImages,
        seed: int,
        crop: int,
        batch: int,
        degradation: str,
        wants: tuple[str, ...],
        device: torch.device,
    ) -> None:
        self.images, self.seed, self.device = images, seed, device
        self.crop, self.batch_size = crop, batch
        self.degradation = TrainingDegradation(degradation, wants, seed, SCALE)
        self.step = 0
        self.seconds = 0.0
        self.warmup = 0

    def advance(self) -> None:
        """Make one step."""
        self.step += 1
        number = self.step - self.warmup  # so that arms with a warm-up and without see the same from then on
        first, second = (
            crops.to(self.device) for crops in self.images.crops(self.batch_size, self.crop, self.seed, number)
        )
        self.train_on(self.degradation.batch(first, second, number))

    def train_on(self, batch: dict[str, Tensor]) -> None:
        """What a step does with its batch."""
        raise NotImplementedError

    def measure(self, tests: Tests) -> dict[str, float]:
        """The figures, by name."""
        raise NotImplementedError

    def parts(self) -> dict[str, Any]:
        """What is saved beside the network: by name, what has ``state_dict()``."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that :meth:`load` needs; the network's weights are where loaders of checkpoints look for them."""
        parts = {name: part.state_dict() for name, part in self.parts().items()}
        return {"params": self.net.state_dict(), "parts": parts, "step": self.step, "seconds": self.seconds}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was called."""
        self.net.load_state_dict(state["params"])
        for name, part in self.parts().items():
            part.load_state_dict(state["parts"][name])
        self.step, self.seconds = state["step"], state["seconds"]


class ContrastTraining(Training):
    """An encoder by contrast alone, by the method that trains one beside any network."""

    def __init__(self, images: TrainingImages, seed: int, size: Size, positives: str, device: torch.device) -> None:
        self.method = DegradationContrast(queue_size=size.queue, positives=positives).to(device)
        super().__init__(
            images, seed, size.crop["encoder"], size.batch["encoder"], "dasr-isotropic", self.method.wants, device
        )
        self.net = self.method.pair.encoder
        self.optimizer = torch.optim.Adam(self.method.pair.parameters(), lr=size.encoder_rate)

    def train_on(self, batch: dict[str, Tensor]) -> None:
        batch = {**batch, "sr": batch["hr"]}  # there is no network beside it
        batch = self.method.run(self.net, batch)
        loss = torch.stack(list(self.method.auxiliary_losses(batch).values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.method.sr_losses(batch)

    def measure(self, tests: Tests) -> dict[str, float]:
        return _of_encoder(self.net, tests)

    def parts(self) -> dict[str, Any]:
        return {"method": self.method, "optimizer": self.optimizer}


class SupervisedTraining(Training):
    """An encoder that is told the kernel's width: what can be had."""

    def __init__(self, images: TrainingImages, seed: int, size: Size, device: torch.device) -> None:
        super().__init__(images, seed, size.crop["encoder"], size.batch["encoder"], "dasr-isotropic", (_SIGMA,), device)
        self.net = DegradationEncoder().to(device)
        self.width = nn.Linear(DegradationEncoder.dim, 1).to(device)
        self.optimizer = torch.optim.Adam([*self.net.parameters(), *self.width.parameters()], lr=size.encoder_rate)

    def train_on(self, batch: dict[str, Tensor]) -> None:
        width = (batch[_SIGMA][:, 0] - 2.1) / 1.1  # of about mean 0 and variance 1
        loss = F.mse_loss(self.width(self.net(batch["lr"]))[:, 0], width)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def measure(self, tests: Tests) -> dict[str, float]:
        return _of_encoder(self.net, tests)

    def parts(self) -> dict[str, Any]:
        return {"width": self.width, "optimizer": self.optimizer}


class SRTraining(Training):
    """An SR network on L1, and on a method's terms if there is one."""

    def __init__(
        self,
        images: TrainingImages,
        seed: int,
        size: Size,
        part: str,
        net: nn.Module,
        method: Method | None,
        degradation: str,
        measured: Callable[[nn.Module, Tests], dict[str, float]],
        device: torch.device,
    ) -> None:
        wants = () if method is None else method.wants
        super().__init__(images, seed, size.crop[part], size.batch[part], degradation, wants, device)
        self.net, self.method, self.measured = net.to(device), method, measured
        self.average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(size.average))
        self.optimizers = {"optimizer": torch.optim.Adam(self.net.parameters(), lr=size.rate)}
        if method is not None:
            method.attach(self.net)
            method.to(device)
            self.warmup = method.warmup_steps
            if method.trainable:
                own = [p for p in method.parameters() if p.requires_grad]
                self.optimizers["method_optimizer"] = torch.optim.Adam(own, lr=size.rate)

    def train_on(self, batch: dict[str, Tensor]) -> None:
        if self.method is None:
            loss = F.l1_loss(self.net(batch["lr"]), batch["hr"])
        else:
            batch = self.method.run(self.net, batch)
            auxiliary = self.method.auxiliary_losses(batch)
            if auxiliary:
                self._descend("method_optimizer", torch.stack(list(auxiliary.values())).sum())
            pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
            losses = self.method.sr_losses(batch, pixel_loss)
            loss = losses.host(pixel_loss) + losses.total
        self._descend("optimizer", loss)
        self.average.update_parameters(self.net)

    def _descend(self, optimizer: str, loss: Tensor) -> None:
        self.optimizers[optimizer].zero_grad()
        loss.backward()
        self.optimizers[optimizer].step()

    def measure(self, tests: Tests) -> dict[str, float]:
        return self.measured(self.average.module.eval(), tests)

    def parts(self) -> dict[str, Any]:
        method = {} if self.method is None else {"method": self.method}
        return {"average": self.average, **self.optimizers, **method}


class Bicubic(nn.Module):
    """Bicubic enlargement with MATLAB's a = -0.5, which is what torch takes where ``antialias`` is asked for."""

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, 3, h * scale, w * scale)."""
        return F.interpolate(lr, scale_factor=SCALE, mode="bicubic", antialias=True)


def measure_reference(part: str, seed: int, tests: Tests, device: torch.device) -> dict[str, float]:
    """The figures of a part for what needs no training.

    Args:
        part: a key of ``REFERENCES``.
        seed: of the random encoder.
        tests: what is measured on.
        device: where.
    """
    if part == "encoder":
        torch.manual_seed(seed)
        return _of_encoder(DegradationEncoder().to(device), tests)
    return (_psnr_spatial if part == "crl" else _psnr_over_widths)(Bicubic(), tests)


def _of_encoder(encoder: nn.Module, tests: Tests) -> dict[str, float]:
    encoder.eval()
    found = tests.of_encoder(encoder)
    encoder.train()
    return found


def _of_networks_encoder(net: nn.Module, tests: Tests) -> dict[str, float]:
    assert isinstance(net, networks.DASR)
    return tests.of_encoder(net.encode)


def _psnr_over_widths(net: nn.Module, tests: Tests) -> dict[str, float]:
    found = {}
    for width in WIDTHS:
        values = tests.psnr(net, f"dasr-table1-width{width}-x{SCALE}")
        found.update({f"psnr/{folder}/{width}": value for folder, value in values.items()})
    return found


def _psnr_spatial(net: nn.Module, tests: Tests) -> dict[str, float]:
    return {f"psnr/{folder}": value for folder, value in tests.psnr(net, f"crl-spatial-x{SCALE}").items()}


def build_training(
    part: str, arm: str, seed: int, images: TrainingImages, size: Size, device: torch.device
) -> Training:
    """An arm at its first step; the network's weights depend on the seed alone.

    Args:
        part: a key of ``ARMS``.
        arm: one of its arms.
        seed: of weights, crops and degradations.
        images: to train on.
        size: how large everything is.
        device: where it is trained.
    """
    torch.manual_seed(seed)
    if part == "crl":
        net: nn.Module = networks.CRLSR(SCALE, **size.crl)
        method = CRLSR(loss_share=0.05, decoupling_share=0.05, model=arm, seed=seed, **size.refinement)
        return SRTraining(images, seed, size, part, net, method, "crl-isotropic", _psnr_spatial, device)
    if part == "dasr":
        contrast = None
        net = networks.DASR(SCALE, **size.dasr)
        if arm != "without":
            contrast = DASR(loss_weight=1 / 255, warmup_steps=size.warmup, queue_size=size.queue, positives=arm)
        return SRTraining(images, seed, size, part, net, contrast, "dasr-isotropic", _psnr_over_widths, device)
    if arm == "sr_loss":
        net = networks.DASR(SCALE, **size.dasr)
        return SRTraining(images, seed, size, part, net, None, "dasr-isotropic", _of_networks_encoder, device)
    if arm == "supervised":
        return SupervisedTraining(images, seed, size, device)
    return ContrastTraining(images, seed, size, arm, device)


def setting(part: str, size: Size) -> str:
    """The network and the batch of a part, in words."""
    crops = f"batch {size.batch[part]}, {size.crop[part]}-pixel HR crops, Adam"
    if part == "encoder":
        return (
            f"encoder of 1.28 M parameters, {crops} {size.encoder_rate:g}, queue {size.queue}; sr_loss: "
            f"DASR {_words(size.dasr)}, {size.rate:g}, averaged weights"
        )
    if part == "crl":
        return (
            f"CRLSR {_words(size.crl)}, {crops} {size.rate:g}, averaged weights, shares 0.05, "
            f"refinement from step {size.refinement['warm_start']} on, {size.refinement['positions']} positions, "
            f"heads to {size.refinement['dim']}; trained on crl-isotropic-x{SCALE}, tested on crl-spatial-x{SCALE}"
        )
    return (
        f"DASR {_words(size.dasr)} and the encoder of 1.28 M parameters, {crops} "
        f"{size.rate:g}, averaged weights, queue {size.queue}, contrast of weight 1/255 and {size.warmup} steps of it "
        f"alone beforehand; trained on dasr-isotropic-x{SCALE}"
    )


def _words(arguments: Mapping[str, Any]) -> str:
    return "(" + ", ".join(f"{name} {value}" for name, value in arguments.items()) + ")"
