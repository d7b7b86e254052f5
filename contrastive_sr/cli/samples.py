"""`contrastive-sr samples`: what a method compares, of an image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from contrastive_sr._checks import check_count
from contrastive_sr.cli.outputs import check_picture, needs_plot
from contrastive_sr.cli.tables import show_table
from contrastive_sr.errors import ConfigError, DataError, printable

if TYPE_CHECKING:
    from torch import Tensor

    from contrastive_sr.methods import Comparison

_SMALLEST = 32


def draw_samples(
    image: Path,
    out: Path,
    *,
    method: str | None,
    config: Path | None,
    checkpoint: Path | None,
    size: int,
    scale: int,
    seed: int,
    console: Console,
) -> None:
    """Draws anchor, positives and negatives of methods, and prints their similarities.

    Args:
        image: an HR image.
        out: the picture to write.
        method: a method's name, for its defaults, or a paper's; in any spelling such as `crl-sr`.
        config: instead, a config of either host, for each of its methods.
        checkpoint: of the config's network; with it come the methods' own parts, if they were saved.
        size: sides of the patch, taken from the image's middle.
        scale: with `method`, the SR scale.
        seed: of new weights, samples and degradations.
        console: where the table goes.

    Raises:
        ConfigError: no such method, a config that cannot be used, or a method that compares nothing.
        DataError: an image that cannot be read or is too small.
        HostError: the config's host, or matplotlib, is missing.
    """
    import torch

    with needs_plot():
        from contrastive_sr.evaluation.samples import save_samples
    from contrastive_sr.hosts.subjects import compare_image, subject_of_config, subject_of_method

    if checkpoint is not None and config is None:
        raise ConfigError("--checkpoint: expected --config with it, the file that it was trained with.")
    if (method is None) == (config is None):
        raise ConfigError("Expected one of --method NAME and --config FILE, e.g. --method pcl.")
    check_picture(out, read=[image])
    check_count(seed, "--seed", at_least=0)
    hr = _read(image)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # they are for trainings
        torch.manual_seed(seed)
        if config is not None:
            subject = subject_of_config(config, checkpoint, scale)
        else:
            assert method is not None
            subject = subject_of_method(method, scale)
        if subject.state is not None:
            console.print(f"Methods: {subject.state}", soft_wrap=True, markup=False)
        comparisons, side = compare_image(subject, hr, size, seed)
    if tuple(hr.shape[-2:]) != (side, side):
        console.print(f"Taken: {side} x {side} from the middle of {hr.shape[-1]} x {hr.shape[-2]}.")
    save_samples(out, comparisons, f"{printable(image.name)}, {side} x {side}, x{subject.scale}; SR: {subject.sr}")
    _print(comparisons, console)
    console.print(f"SR: {subject.sr}\nWritten: {out}", soft_wrap=True, markup=False)


def _read(image: Path) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    from contrastive_sr.data import read_rgb

    if image.is_dir():
        raise DataError(f"Expected an image, got the folder {image}. Name one of its images.")
    if not image.is_file():
        raise DataError(f"Expected an image at {image}, but there is none. Check the path.")
    hr = read_rgb(image)
    if min(hr.shape[-2:]) < _SMALLEST:
        raise DataError(
            f"{image} is {hr.shape[-1]} x {hr.shape[-2]}; expected an HR image of at least {_SMALLEST} x {_SMALLEST}."
        )
    return hr


def _print(comparisons: Sequence[Comparison], console: Console) -> None:
    from contrastive_sr.methods.compared import in_digits

    for comparison in comparisons:
        note = f", {comparison.note}" if comparison.note else ""
        console.print(f"[bold]{comparison.title}[/bold]{note}; numbers: {comparison.quantity}", soft_wrap=True)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column("", overflow="fold")
        table.add_column("role")
        table.add_column("", justify="right", no_wrap=True)
        for part in comparison.parts:
            if part.similarity is not None:
                table.add_row(part.label, part.role, in_digits(part.similarity, 4))
        show_table(console, table)
        console.print()
