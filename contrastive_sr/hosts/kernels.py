"""The true kernels of test images, for networks that read them; for both hosts.

`contrastive-sr prepare degrade` writes them beside the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DataParallel, DistributedDataParallel

from contrastive_sr._json import parse_json
from contrastive_sr.data.degraded import MANIFEST
from contrastive_sr.data.images import list_images
from contrastive_sr.degradations import gaussian_kernels
from contrastive_sr.errors import DataError
from contrastive_sr.hosts.prepared import how_to_prepare
from contrastive_sr.networks import DASR


def super_resolve(net: Callable[..., Tensor], lr: Tensor, paths: Sequence[str | Path]) -> Tensor:
    """SR images by any network; one that reads kernels gets those of the images.

    Args:
        net: the SR network, wrapped for several processes or not.
        lr: (B, 3, h, w).
        paths: the B files of the LR images; looked at only by a network that reads kernels.

    Raises:
        DataError: see :func:`true_kernels`.
    """
    size = kernel_size(net)
    return net(lr) if size is None else net(lr, kernel=true_kernels(paths, size).to(lr))


def kernel_size(net: object) -> int | None:
    """Side of the kernels that an SR network reads, or None."""
    bare = net.module if isinstance(net, (DataParallel, DistributedDataParallel)) else net
    return bare.kernel_size if isinstance(bare, DASR) and bare.kernel_layers is not None else None


def check_known(folder: str | Path, size: int) -> None:
    """Check that the kernels of all LR images in a folder are known, see :func:`true_kernels`."""
    true_kernels(list_images(folder, hint=how_to_prepare), size)


def true_kernels(paths: Sequence[str | Path], size: int) -> Tensor:
    """The kernels that LR images were made with.

    Args:
        paths: files of a set that `contrastive-sr prepare degrade` has written.
        size: side of the kernels.

    Returns:
        (B, size, size).

    Raises:
        DataError: how an image was made is not known, it was not made with one kernel, or with one of another size.
    """
    sets: dict[Path, dict[str, Any]] = {}
    kernels = []
    for path in map(Path, paths):
        manifest = path.parent.parent / MANIFEST
        if manifest not in sets:
            sets[manifest] = _read(manifest)
        try:
            known = sets[manifest]["kernel_size"]
            sigma, angle = (torch.tensor([sets[manifest]["images"][path.name][key]]) for key in ("sigma", "angle"))
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: expected the kernel it was made with in {manifest}, because the SR network reads it, got "
                f"none. {_ADVICE}"
            ) from error
        if known != size:
            raise DataError(f"{manifest}: expected kernels of {size} x {size}, as the SR network reads, got {known}.")
        kernels.append(gaussian_kernels(sigma, angle, size))
    return torch.cat(kernels)


def _read(manifest: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = parse_json(manifest.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"The SR network reads the true kernel of each image, also in validation, and {manifest} cannot be read "
            f"({error.strerror if isinstance(error, OSError) else error}). {_ADVICE}"
        ) from error
    return content


_ADVICE = (
    "Validate on a set that `contrastive-sr prepare degrade` has made, with a preset that is not spatially variant, in "
    "its own folders; or train without validation."
)
