"""Training crops and test sets from folders of HR images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from contrastive_sr.data import list_images, pair_folders, read_rgb, two_corners
from contrastive_sr.data.images import UInt8Image
from contrastive_sr.degradations import build_degradation
from contrastive_sr.errors import ConfigError, DataError

SCALE = 4
_STREAM = 0xC0FFEE  # other numbers than those that degrade the crops


def check_folders(train: Sequence[Path], test: Sequence[Path]) -> None:
    """Refuse folders that cannot be told apart, or that are both trained and tested on.

    Raises:
        ConfigError: such folders, or none at all.
    """
    if not train or not test:
        raise ConfigError("Expected folders of images, --train DIR and --test DIR; --report needs none.")
    if len({folder.resolve().name for folder in test}) < len(test):
        raise ConfigError(f"--test: expected folders of different names, got {', '.join(map(str, test))}.")
    if {folder.resolve() for folder in train} & {folder.resolve() for folder in test}:
        raise ConfigError("--test: expected other folders than those of --train, so that test images are unseen.")


def to_bytes(image: Tensor) -> UInt8Image:
    """(1, 3, H, W) in [0, 1] as what a file would hold."""
    pixels: UInt8Image = (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


class TrainingImages:
    """Random crops, turned and flipped, that depend on seed and step alone.

    Args:
        folders: of HR images; grey ones get three equal channels, those smaller than a crop are left out.
        size: sides of the largest crops, in HR pixels.
        device: where the images are kept, as bytes.

    Raises:
        DataError: no images that are large enough, or one that cannot be read.
    """

    def __init__(self, folders: Sequence[Path], size: int, device: torch.device) -> None:
        read = [read_rgb(file)[0] for folder in folders for file in list_images(folder)]
        large = [(image * 255).round().byte().to(device) for image in read if min(image.shape[-2:]) >= size]
        if not large:
            raise DataError(
                f"Expected training images of at least {size} x {size} pixels in {', '.join(map(str, folders))}, got "
                f"{len(read)} smaller ones."
            )
        self.images, self.left_out = large, len(read) - len(large)

    def crops(self, count: int, size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Two crops of each of ``count`` images, apart where there is room, (count, 3, size, size) in [0, 1]."""
        generator = torch.Generator().manual_seed((_STREAM + seed + step * 1_000_003) % 2**63)
        # different images, so that none is a negative of itself, as far as there are so many
        chosen = [int(torch.randint(len(self.images), (), generator=generator)) for _ in range(count)]
        if count <= len(self.images):
            chosen = torch.randperm(len(self.images), generator=generator)[:count].tolist()
        pairs = [_two_crops(self.images[index], size, generator) for index in chosen]
        first, second = zip(*pairs, strict=True)
        return torch.stack(first).float() / 255, torch.stack(second).float() / 255


def _two_crops(image: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    height, width = image.shape[-2:]
    corners = two_corners(height, width, size, lambda below: int(torch.randint(below, (), generator=generator)))
    return [_crop(image, *corner, size, generator) for corner in corners]


def _crop(image: Tensor, top: int, left: int, size: int, generator: torch.Generator) -> Tensor:
    crop = image[:, top : top + size, left : left + size]
    turn, flip = torch.randint(4, (2,), generator=generator).tolist()
    return torch.rot90(crop.flip(-1) if flip % 2 else crop, turn, (-2, -1))


class TestImages:
    """HR images of a folder, and what degradations make of them, the same in every run.

    Args:
        folder: of HR images; grey ones get three equal channels.
        count: how many to take at most, evenly from the folder.
        device: where they go.

    Raises:
        DataError: no images, or one that cannot be read.
    """

    __test__ = False  # no test, whatever the name says

    def __init__(self, folder: Path, count: int, device: torch.device) -> None:
        files = list_images(folder)
        self.name, self.device = folder.name, device
        self.files = [files[index * len(files) // count] for index in range(count)] if count < len(files) else files
        self.hr = []
        for file in self.files:
            image = read_rgb(file)
            height, width = (length // SCALE * SCALE for length in image.shape[-2:])
            self.hr.append(image[..., :height, :width].to(device))

    def degraded(self, preset: str) -> list[Tensor]:
        """An LR image (1, 3, h, w) for each HR image; the noise depends on the image's number alone."""
        degradation = build_degradation(preset)
        return [
            degradation(hr, torch.Generator().manual_seed(number)).lr.to(self.device)
            for number, hr in enumerate(self.hr)
        ]


class TrainingPairs:
    """Random crops of LR/HR pairs, turned and flipped alike, that depend on seed and step alone.

    Args:
        folder: holds ``HR`` and ``LR``, images of equal names.
        size: sides of the crops, in HR pixels; a multiple of the scale.
        device: where the images are kept, as bytes.

    Raises:
        DataError: no pairs, sizes that do not fit, or an image that cannot be read.
    """

    def __init__(self, folder: Path, size: int, device: torch.device) -> None:
        self.size = size
        self.hr: list[Tensor] = []
        self.lr: list[Tensor] = []
        for pair in pair_folders(folder / "HR", folder / "LR", SCALE, least=size):
            for images, file in zip((self.hr, self.lr), pair, strict=True):
                images.append((read_rgb(file)[0] * 255).round().byte().to(device))

    def crops(self, count: int, seed: int, step: int) -> dict[str, Tensor]:
        """``"lr"`` and ``"hr"`` crops of ``count`` images, in [0, 1]."""
        generator = torch.Generator().manual_seed((_STREAM + seed + step * 1_000_003) % 2**63)
        lr: list[Tensor] = []
        hr: list[Tensor] = []
        for index in torch.randint(len(self.hr), (count,), generator=generator).tolist():
            height, width = self.lr[index].shape[-2:]
            side = self.size // SCALE
            top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in (height, width))
            turn, flip = torch.randint(4, (2,), generator=generator).tolist()
            for crops, image, scale in ((lr, self.lr[index], 1), (hr, self.hr[index], SCALE)):
                crop = image[:, top * scale : (top + side) * scale, left * scale : (left + side) * scale]
                crops.append(torch.rot90(crop.flip(-1) if flip % 2 else crop, turn, (-2, -1)))
        return {"lr": torch.stack(lr).float() / 255, "hr": torch.stack(hr).float() / 255}


class TestPairs:
    """LR/HR pairs of a folder.

    Args:
        folder: holds ``HR`` and ``LR``, images of equal names.
        count: how many to take at most, evenly from the folder.
        device: where they go.

    Raises:
        DataError: no pairs, sizes that do not fit, or an image that cannot be read.
    """

    __test__ = False

    def __init__(self, folder: Path, count: int, device: torch.device) -> None:
        pairs = pair_folders(folder / "HR", folder / "LR", SCALE)
        chosen = [pairs[index * len(pairs) // count] for index in range(count)] if count < len(pairs) else pairs
        self.names = [hr.stem for hr, _ in chosen]
        self.hr = [to_bytes(read_rgb(hr)) for hr, _ in chosen]
        self.lr = [read_rgb(lr).to(device) for _, lr in chosen]
