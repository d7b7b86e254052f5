"""`contrastive-sr plot degradations`: what an encoder makes of images under several degradations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from contrastive_sr.cli.degrade import SUFFIXES, read_rgb
from contrastive_sr.cli.pictures import check_picture, needs_plot
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.hosts.pairs import list_images

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from contrastive_sr.degradations import Degradation

WIDTHS = (0.2, 1.0, 1.8, 2.6, 3.4)
NOISE_LEVELS = (0.0, 5.0, 10.0, 15.0)
NOISE_WIDTH = 1.8
LARGEST = 512
"""Sides of what is taken of an image, from its middle, in HR pixels."""


def plot_degradations(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    without_contrast: Path | None = None,
    widths: Sequence[float] | None = None,
    noise_levels: Sequence[float] | None = None,
    scale: int = 4,
    images: int = 100,
    seed: int = 0,
    console: Console,
) -> None:
    """Draws a t-SNE for each encoder, once over kernel widths and once over noise levels, and prints accuracies.

    Args:
        checkpoint: a file with a degradation encoder.
        data: folder of HR images.
        out: the picture to write.
        without_contrast: a file with another one, trained without contrast.
        widths: of isotropic kernels, without noise; None: `WIDTHS`.
        noise_levels: each with a kernel of width 1.8; None: `NOISE_LEVELS`.
        scale: downsampling factor.
        images: how many to take, evenly from the folder; at least 3.
        seed: of the noise and of the random encoder.
        console: where the table goes.

    Raises:
        HostError: the extra is not installed.
        ConfigError: a file without such an encoder, degradations that make no sense, or a picture that cannot be
            written.
        DataError: no images, or one that cannot be used.
    """
    with needs_plot():
        import torch

        from contrastive_sr.evaluation import degradations as evaluation
    from contrastive_sr.embeddings import DegradationEncoder
    from contrastive_sr.networks.parts import check_scale

    check_scale(scale, "plot degradations")
    kinds = {
        "kernel width": _degradations(widths or WIDTHS, [0.0], scale, "--width"),
        "noise level": _degradations([NOISE_WIDTH], noise_levels or NOISE_LEVELS, scale, "--noise"),
    }
    check_picture(out)
    # an encoder is looked for first: reading images takes longer
    encoders: dict[str, nn.Module] = {checkpoint.name: DegradationEncoder(weights=checkpoint).eval()}
    if without_contrast is not None:
        encoders[f"{without_contrast.name}, without contrast"] = DegradationEncoder(weights=without_contrast).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders["random encoder"] = DegradationEncoder().eval()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with console.status("reading images ..."):
        contents, grey = read_images(data, images, device)
    if grey:
        console.print(f"{grey} grey of {data.name} left out: encoders are trained on colour.", soft_wrap=True)
    table = Table("encoder", *(f"kNN over {len(values)} {kind}s" for kind, values in kinds.items()))
    panels: list[list[evaluation.Panel]] = []
    accuracies: dict[str, list[str]] = {name: [] for name in encoders}
    for kind, degradations in kinds.items():
        generator = torch.Generator().manual_seed(seed)
        with console.status(f"degrading images, {kind} ..."):
            versions = evaluation.degraded_versions(contents, list(degradations.values()), generator)
        panels.append([])
        for name, encoder in encoders.items():
            with console.status(f"{name}: {kind} ..."):
                found = evaluation.encode(encoder.to(device), versions)
                accuracy = evaluation.knn_accuracy(found)
            accuracies[name].append(f"{accuracy:.3f}")
            panels[-1].append(evaluation.Panel(f"{name}\n{kind}, kNN {accuracy:.2f}", found, list(degradations)))
    for name, row in accuracies.items():
        table.add_row(name, *row)
    table.add_row("guessing", *(f"{1 / len(values):.3f}" for values in kinds.values()), style="dim")
    with console.status("drawing ..."):
        evaluation.save_tsne(out, panels, f"{len(contents)} images of {data.name}, x{scale}")
    console.print(table)
    console.print(
        f"{len(contents)} images, each under every degradation; neighbours of an image are those of others.\n"
        f"Written: {out}",
        soft_wrap=True,
    )


def _degradations(
    widths: Sequence[float], noise_levels: Sequence[float], scale: int, option: str
) -> dict[str, Degradation]:
    """By label; one of the two lists has a single entry."""
    from contrastive_sr.degradations import Degradation, IsotropicGaussian

    values = widths if option == "--width" else noise_levels
    if len(set(values)) < max(len(values), 2):
        raise ConfigError(f"{option}: expected at least two different values, got {', '.join(map(str, values))}.")
    made = [
        Degradation(scale=scale, kernel=IsotropicGaussian(sigma=(width, width)), noise=(level, level))
        for width in widths
        for level in noise_levels
    ]
    return dict(zip(map(str, values), made, strict=True))


def read_images(folder: Path, count: int, device: torch.device | str) -> tuple[list[Tensor], int]:
    """The middles of colour images, evenly from a folder.

    Args:
        folder: of HR images.
        count: how many at most.
        device: where they go.

    Returns:
        (1, 3, H, W) each, RGB in [0, 1], and how many grey images were left out.

    Raises:
        DataError: fewer than 3 images in colour, or one that cannot be read or is smaller than the kernels.
    """
    files = list_images(folder, suffixes=SUFFIXES)
    chosen = files[:: max(1, len(files) // count)][:count]
    images = []
    for file in chosen:
        image = read_rgb(file)
        if (image == image[:, :1]).all():
            continue
        if min(image.shape[-2:]) < 24:
            raise DataError(f"{file} is {image.shape[-1]} x {image.shape[-2]}; expected at least 24 x 24 pixels.")
        top, left = (max(0, length - LARGEST) // 2 for length in image.shape[-2:])
        images.append(image[..., top : top + LARGEST, left : left + LARGEST].to(device))
    if len(images) < 3:
        raise DataError(
            f"Expected at least 3 images in colour in {folder}, so that they can be compared, got {len(images)}."
        )
    return images, len(chosen) - len(images)
