"""`contrastive-sr plot degradations`: what an encoder makes of images under several degradations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contrastive_sr.cli.outputs import check_picture, needs_plot
from contrastive_sr.cli.tables import show_table
from contrastive_sr.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from contrastive_sr.degradations import Degradation

WIDTHS = (0.2, 1.0, 1.8, 2.6, 3.4)
NOISE_LEVELS = (0.0, 5.0, 10.0, 15.0)
NOISE_WIDTH = 1.8
UNITS = {"kernel width": "(HR pixels)", "noise level": "(of 255)"}


def plot_degradations(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    without_contrast: Path | None = None,
    widths: Sequence[float] | None = None,
    noise_levels: Sequence[float] | None = None,
    presets: Sequence[str] | None = None,
    scale: int = 4,
    images: int = 100,
    seed: int = 0,
    console: Console,
) -> None:
    """Draws a t-SNE for each encoder, over kernel widths, noise levels, and presets, and prints accuracies.

    Args:
        checkpoint: a file with a degradation encoder.
        data: folder of HR images.
        out: the picture to write.
        without_contrast: a file with another one, trained without contrast.
        widths: of isotropic kernels, without noise; None: `WIDTHS`.
        noise_levels: each with a kernel of width 1.8; None: `NOISE_LEVELS`.
        presets: names of degradations to tell apart, too; None: none.
        scale: downsampling factor.
        images: how many to take, at least 3; of a large folder every second, third and so on, from the first.
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

        from contrastive_sr.evaluation.degradations import compare_encoders, read_contents, save_tsne
    from contrastive_sr.data.images import list_images
    from contrastive_sr.embeddings import DegradationEncoder
    from contrastive_sr.networks.parts import check_scale

    check_scale(scale, "plot degradations")
    kinds = {
        "kernel width": _degradations(widths or WIDTHS, [0.0], scale, "--width"),
        "noise level": _degradations([NOISE_WIDTH], noise_levels or NOISE_LEVELS, scale, "--noise"),
    }
    if presets:
        kinds["preset"] = _presets(presets, scale)
    check_picture(out, read=list_images(data))
    # encoders come first: reading images takes longer
    encoders: dict[str, nn.Module] = {checkpoint.name: DegradationEncoder(weights=checkpoint).eval()}
    if without_contrast is not None:
        encoders[f"{without_contrast.name}, without contrast"] = DegradationEncoder(weights=without_contrast).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders["random encoder"] = DegradationEncoder().eval()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with console.status("reading images ...") as status:
        contents, grey = read_contents(data, images, device)
        if grey:
            console.print(
                f"{grey} grey of {data.name} left out: encoders are trained on colour.", soft_wrap=True, markup=False
            )
        panels, accuracies = compare_encoders(
            encoders, contents, kinds, units=UNITS, seed=seed, on_progress=status.update
        )
        status.update("drawing ...")
        save_tsne(out, panels, f"{len(contents)} images of {data.name}, x{scale}")
    table = Table("encoder", *(f"kNN over {len(values)} {kind}s" for kind, values in kinds.items()))
    for name, values in accuracies.items():
        table.add_row(escape(name), *(f"{value:.3f}" for value in values))
    table.add_row("guessing", *(f"{1 / len(values):.3f}" for values in kinds.values()), style="dim")
    show_table(console, table)
    console.print(
        f"{len(contents)} images, each under every degradation; neighbours of an image are those of others.\n"
        f"Written: {out}",
        soft_wrap=True,
        markup=False,
    )


def _degradations(
    widths: Sequence[float], noise_levels: Sequence[float], scale: int, option: str
) -> dict[str, Degradation]:
    """By label; one of the two lists has a single entry."""
    from contrastive_sr.degradations import Degradation, IsotropicGaussian

    values = widths if option == "--width" else noise_levels
    _check_different(values, option)
    made = [
        Degradation(scale=scale, kernel=IsotropicGaussian(sigma=(width, width)), noise=(level, level))
        for width in widths
        for level in noise_levels
    ]
    return dict(zip(map(str, values), made, strict=True))


def _presets(names: Sequence[str], scale: int) -> dict[str, Degradation]:
    """By name without the scale."""
    from contrastive_sr.degradations import build_degradation, find_preset

    _check_different(names, "--preset")
    full = [find_preset(name, scale) for name in names]
    return {name.removesuffix(f"-x{scale}"): build_degradation(name) for name in full}


def _check_different(values: Sequence[object], option: str) -> None:
    if len(set(values)) < max(len(values), 2):
        raise ConfigError(f"{option}: expected at least two different values, got {', '.join(map(str, values))}.")
