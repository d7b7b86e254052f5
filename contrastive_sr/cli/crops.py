"""`contrastive-sr plot crops`: parts of photographs under several networks, side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.markup import escape

from contrastive_sr.cli.evaluate import find_device, lr_source, named_networks
from contrastive_sr.cli.outputs import check_picture, needs_plot
from contrastive_sr.errors import ConfigError, DataError, named_in_errors, printable

if TYPE_CHECKING:
    from contrastive_sr.data.images import UInt8Image
    from contrastive_sr.evaluation import Pair
    from contrastive_sr.evaluation.evaluate import Score
    from contrastive_sr.evaluation.report import Box

Photo = tuple[Path, Path | None]
"""The files of an HR image and of its LR image, if that is given."""
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
    if not at or Path(text).exists() or len(Path(numbers).parts) > 1:  # the @ belongs to the file or a folder above it
        path, at = text, ""
    square = None
    if at:
        found = re.fullmatch(r"(\d+),(\d+),(\d+)", numbers)
        if not found or int(found[3]) == 0:
            raise ConfigError(f"IMAGE: expected {_FORM}, got {text!r}.")
        square = int(found[1]), int(found[2]), int(found[3])
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "is not there"
        raise DataError(f"IMAGE: expected the file of an HR image, got {path}, which {what}. Form: {_FORM}.")
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
        lpips_weights: file of an AlexNet, for LPIPS; None: torchvision's, if it has been downloaded before.
        device: None: the GPU, if there is one.
        console: where lines go.

    Raises:
        ConfigError: arguments or networks that cannot be used.
        DataError: images that cannot be used, or a square that does not lie in its image.
        HostError: something that is needed is not installed.
    """
    with needs_plot():
        from contrastive_sr.evaluation.plots import save_grid
    from contrastive_sr.data.pairs import check_pairs
    from contrastive_sr.evaluation import DataSet, evaluate
    from contrastive_sr.evaluation.comparison import check_networks
    from contrastive_sr.evaluation.data_sets import read_pairs
    from contrastive_sr.evaluation.evaluate import check_measurable
    from contrastive_sr.evaluation.tiles import check_tiles
    from contrastive_sr.hosts.metrics import find_lpips

    if tile is not None:
        check_tiles(tile, overlap)
    wanted = [part_of(text) for text in parts]
    if not methods and not checkpoints:
        raise ConfigError("Expected something to draw: --checkpoint FILE, or --bicubic, or both; got none.")
    if lr and len(lr) != len(wanted):
        raise ConfigError(f"--lr: expected one for each IMAGE, in the same order, got {len(lr)} for {len(wanted)}.")
    if scale == 1 and not lr:
        raise ConfigError(
            "--lr: expected a file for each IMAGE, got none. At scale 1, LR made from HR would be HR itself."
        )
    source = lr_source(lr, degradation, scale, seed)
    check_picture(out, read=[*(part.file for part in wanted), *lr])
    if lr:
        with named_in_errors("--lr"):
            check_pairs([part.file for part in wanted], lr, scale, cropped=True)
    on = find_device(device)
    with console.status("getting ready ..."):
        compared = named_networks(methods, checkpoints, networks, scale, console)
        lpips, lines = find_lpips(lpips_weights, on)
        check_networks(compared, scale, on)
    photos = [(part.file, lr[number] if lr else None) for number, part in enumerate(wanted)]
    pairs: dict[Photo, Pair] = {}
    for file, lr_file in dict.fromkeys(photos):
        (pair,) = read_pairs(DataSet(file.name, [file], [lr_file] if lr_file else []), source, scale)
        check_measurable(pair, scale)
        pairs[file, lr_file] = pair
    boxes = [_box(part, pairs[photo]) for part, photo in zip(wanted, photos, strict=True)]
    columns: list[dict[Photo, tuple[str, UInt8Image]]] = []
    with console.status("super-resolving ...") as status:
        for network in compared:
            status.update(f"super-resolving: {escape(network.name)}")
            network.to(on)
            images: list[UInt8Image] = []

            def keep(pair: Pair, sr: UInt8Image, score: Score, images: list[UInt8Image] = images) -> None:
                images.append(sr)

            with named_in_errors(network.name):
                scores = evaluate(
                    network.call,
                    pairs.values(),
                    scale,
                    metrics=lpips,
                    tile=tile,
                    overlap=overlap,
                    device=on if network.module is not None else "cpu",
                    on_image=keep,
                )
            network.to("cpu")
            titles = [_title(network.name, score) for score in scores]
            columns.append(dict(zip(pairs, zip(titles, images, strict=True), strict=True)))
            lines += [
                f"{network.name}: {name} of {score.name} could not be measured ({reason})."
                for score in scores
                for name, reason in score.failed.items()
            ]
    rows = []
    for photo, (left, top, right, bottom) in zip(photos, boxes, strict=True):
        hr = pairs[photo].hr
        assert hr is not None
        row = [*(column[photo] for column in columns), (f"HR\n{printable(photo[0].stem)}", hr)]
        rows.append([(title, image[top:bottom, left:right]) for title, image in row])
    save_grid(out, rows)
    for line in lines:
        console.print(f"- {line}", soft_wrap=True, highlight=False, markup=False)
    for part, (left, top, right, _) in zip(wanted, boxes, strict=True):
        console.print(f"{part.file}@{left},{top},{right - left}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Figures are those of whole images. Written: {out}", soft_wrap=True, highlight=False, markup=False)


def _title(network: str, score: Score) -> str:
    psnr, lpips = score.values["psnr_y"], score.values.get("lpips")
    assert psnr is not None
    return f"{network}\n{psnr:.2f} dB" + ("" if lpips is None else f", LPIPS {lpips:.3f}")


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
