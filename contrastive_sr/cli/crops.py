"""`contrastive-sr plot crops`: parts of photographs under several networks, side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from contrastive_sr.cli.evaluate import find_device, lr_source, named_networks
from contrastive_sr.cli.outputs import check_picture, needs_plot
from contrastive_sr.errors import ConfigError, DataError, named_in_errors

if TYPE_CHECKING:
    from contrastive_sr.data.images import UInt8Image
    from contrastive_sr.evaluation import Pair
    from contrastive_sr.evaluation.report import Box

SIDE = 64
"""Of a part whose place is not given, in HR pixels."""
_FORM = "IMAGE or IMAGE@LEFT,TOP,SIDE, such as Set14/zebra.png@320,120,64"


class Part(NamedTuple):
    """What is shown of a photograph.

    Attributes:
        file: the HR image.
        square: left, top and side, in HR pixels; None: where edges are steepest.
    """

    file: Path
    square: tuple[int, int, int] | None


def part_of(text: str) -> Part:
    """``IMAGE`` or ``IMAGE@LEFT,TOP,SIDE`` in parts; an existing file with an @ in its name is an image.

    Raises:
        ConfigError: another form.
        DataError: the file is not there.
    """
    path, at, numbers = text.rpartition("@")
    if not at or Path(text).exists():
        path, at = text, ""
    square = None
    if at:
        found = re.fullmatch(r"(\d+),(\d+),(\d+)", numbers)
        if not found or int(found[3]) == 0:
            raise ConfigError(f"IMAGE: expected {_FORM}, got {text!r}.")
        square = int(found[1]), int(found[2]), int(found[3])
    if not Path(path).is_file():
        raise DataError(f"IMAGE: expected a file of an HR image, got {path}, which is not there. Form: {_FORM}.")
    return Part(Path(path), square)


def plot_crops(
    parts: Sequence[str],
    out: Path,
    *,
    methods: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
    networks: Sequence[str] = (),
    lr: Sequence[Path] = (),
    degradation: str | None = None,
    scale: int,
    seed: int = 0,
    tile: int | None = None,
    overlap: int = 32,
    lpips_weights: Path | None = None,
    device: str | None = None,
    console: Console,
) -> None:
    """Draws a row for each part, a column for each network and for HR, with PSNR-Y and LPIPS of the whole images.

    Args:
        parts: see :func:`part_of`.
        out: the picture to write.
        methods: built-in ones, ``bicubic``.
        checkpoints: ``FILE`` or ``NAME=FILE``.
        networks: see :func:`contrastive_sr.cli.evaluate.named_networks`.
        lr: an LR image for each part, or none.
        degradation: a preset that LR images are made with; None: bicubic.
        scale: of the networks.
        seed: of the degradation.
        tile: sides of the tiles, in LR pixels; None: whole images.
        overlap: of the tiles, in LR pixels.
        lpips_weights: file of an AlexNet; None: no LPIPS.
        device: None: the GPU, if there is one.
        console: where lines go.

    Raises:
        ConfigError: arguments or networks that cannot be used.
        DataError: images that cannot be used, or a square that does not lie in its image.
        HostError: something that is needed is not installed.
    """
    with needs_plot():
        from contrastive_sr.evaluation.plots import save_grid
    import torch

    from contrastive_sr.data.images import as_image
    from contrastive_sr.evaluation import DataSet, psnr_y
    from contrastive_sr.evaluation.comparison import check_networks
    from contrastive_sr.evaluation.data_sets import read_pairs
    from contrastive_sr.evaluation.evaluate import check_measurable, super_resolve
    from contrastive_sr.evaluation.lpips import load_lpips
    from contrastive_sr.evaluation.tiles import check_tiles

    if tile is not None:
        check_tiles(tile, overlap)
    wanted = [part_of(text) for text in parts]
    if not methods and not checkpoints:
        raise ConfigError("Expected something to draw: --checkpoint FILE, or --bicubic, or both; got none.")
    if lr and len(lr) != len(wanted):
        raise ConfigError(f"--lr: expected one for each IMAGE, in the same order, got {len(lr)} for {len(wanted)}.")
    source = lr_source(lr, degradation, scale, seed)
    check_picture(out)
    on = find_device(device)
    with console.status("getting ready ..."):
        compared = named_networks(methods, checkpoints, networks, scale, console)
        lpips = None if lpips_weights is None else load_lpips(lpips_weights, on)
        check_networks(compared, scale, on)
    pairs: dict[Path, Pair] = {}
    for number, part in enumerate(wanted):
        with named_in_errors(str(part.file)):
            of_one = DataSet(part.file.name, [part.file], [lr[number]] if lr else [])
            (pairs[part.file],) = read_pairs(of_one, source, scale)
            check_measurable(pairs[part.file], scale)
    boxes = [_box(part, pairs[part.file]) for part in wanted]
    columns: list[dict[Path, tuple[str, UInt8Image]]] = []
    with console.status("super-resolving ...") as status:
        for network in compared:
            status.update(f"super-resolving: {network.name}")
            network.to(on)
            column = {}
            for file, pair in pairs.items():
                given = pair.lr.to(on if network.module is not None else "cpu")
                with torch.inference_mode(), named_in_errors(network.name):
                    sr = as_image(super_resolve(network.call, given, scale, tile, overlap, pair.name))
                assert pair.hr is not None
                title = f"{network.name}\n{psnr_y(sr, pair.hr, border=scale):.2f} dB"
                if lpips is not None and (value := lpips(sr, pair.hr)) is not None:
                    title += f", LPIPS {value:.3f}"
                column[file] = title, sr
            network.to("cpu")
            columns.append(column)
    rows = []
    for part, (left, top, right, bottom) in zip(wanted, boxes, strict=True):
        hr = pairs[part.file].hr
        assert hr is not None
        row = [*(column[part.file] for column in columns), (f"HR\n{part.file.stem}", hr)]
        rows.append([(title, image[top:bottom, left:right]) for title, image in row])
    save_grid(out, rows)
    for part, (left, top, right, _) in zip(wanted, boxes, strict=True):
        console.print(f"{part.file}@{left},{top},{right - left}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Figures are those of whole images. Written: {out}", soft_wrap=True, highlight=False, markup=False)


def _box(part: Part, pair: Pair) -> Box:
    from contrastive_sr.evaluation.report import most_detailed

    assert pair.hr is not None
    height, width = pair.hr.shape[:2]
    if part.square is None:
        return most_detailed(pair.hr, min(SIDE, height, width))
    left, top, side = part.square
    if left + side > width or top + side > height:
        raise DataError(
            f"IMAGE: expected a square inside {part.file}, of {width} x {height} pixels, got one of {side} x {side} at "
            f"{left},{top}."
        )
    return left, top, left + side, top + side
